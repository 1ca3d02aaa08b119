"""The operations of a client, grouped as the protocol groups them: server, tools, resources, prompts.

Each is one public call under one deadline. None of them knows how a session is kept alive.
"""
