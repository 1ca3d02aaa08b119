"""What a process holds: children and sockets, read from /proc."""

from __future__ import annotations

from pathlib import Path


def child_processes() -> set[int]:
    """The pids of this process's direct children, zombies included."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update(int(pid) for pid in (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that ended meanwhile; its children are another's now
    return found


def open_sockets() -> set[str]:
    """The inodes of the sockets this process holds."""
    found: set[str] = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue  # the descriptor of this very listing
        if target.startswith("socket:"):
            found.add(target)
    return found
