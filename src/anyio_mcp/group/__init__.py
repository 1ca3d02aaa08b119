"""Many servers, one set of verbs: client_group.py is the facade, verbs.py what it can do, keeper.py holds
the sessions, member.py is one server, names.py and sources.py say what it is called and made of.
"""

from anyio_mcp.group.client_group import ClientGroup

__all__ = ("ClientGroup",)
