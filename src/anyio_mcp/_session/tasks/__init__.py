"""Background tasks of the server: what they look like on the wire of either era, and following one."""
