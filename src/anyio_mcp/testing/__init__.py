"""Tools for tests of clients and transports: no pytest, both backends, virtual time.

clocks.py        virtual time for `anyio.run()` and for anyio's pytest plugin
peer.py          `ScriptedPeer`: a server that does what the test says, and its transport
connection.py    one connection to it, for both ends
faults.py        `FaultyTransport`: any transport, with faults by plan
exploration.py   scenarios that must end, run once for every checkpoint they can be cancelled at
tasks.py         what every task is waiting for, as text
strategies.py    Hypothesis strategies; needs hypothesis, so it is imported only by who wants it
"""

from anyio_mcp.testing.clocks import DeadlockError, VirtualTime, backend_options
from anyio_mcp.testing.connection import ScriptedConnection
from anyio_mcp.testing.exploration import (
    HangError,
    Interruption,
    LeakError,
    cancel_everywhere,
    check_at_rest,
    check_never_hangs,
    never_hang,
)
from anyio_mcp.testing.faults import Fault, FaultKind, FaultPlan, FaultyTransport
from anyio_mcp.testing.peer import PeerRequest, ScriptedPeer, silence
from anyio_mcp.testing.tasks import task_dump

__all__ = (
    # Time
    "VirtualTime",
    "backend_options",
    "DeadlockError",
    # A server
    "ScriptedPeer",
    "ScriptedConnection",
    "PeerRequest",
    "silence",
    # Faults
    "FaultyTransport",
    "FaultPlan",
    "Fault",
    "FaultKind",
    # Scenarios
    "check_never_hangs",
    "never_hang",
    "cancel_everywhere",
    "Interruption",
    "check_at_rest",
    "HangError",
    "LeakError",
    "task_dump",
)
