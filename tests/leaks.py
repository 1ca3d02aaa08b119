"""What a process holds and who is alive, read from /proc: children, sockets, other processes."""

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


def is_alive(pid: int) -> bool:
    """A zombie is not: a grandchild is reaped by whoever adopted it, not by us."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def locals_behind(error: BaseException | None) -> str:
    """The local variables of all frames but a test's, behind an error and what it came from."""
    if error is None:
        return ""
    found, trace = "", error.__traceback__
    while trace is not None:
        if "/tests/" not in trace.tb_frame.f_code.co_filename:
            found += repr(dict(trace.tb_frame.f_locals))
        trace = trace.tb_next
    return found + locals_behind(error.__cause__) + locals_behind(error.__context__)
