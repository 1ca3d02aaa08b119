"""Hypothesis strategies for faults. Needs `hypothesis`, which nothing else in this package imports."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

from anyio_mcp.testing.faults import Fault, FaultKind, FaultPlan


def faults(
    *, kinds: Iterable[FaultKind] = FaultKind, messages: int = 20, connections: int = 3
) -> st.SearchStrategy[Fault]:
    """One fault, of one of the first `messages` messages of one of the first `connections` connections."""
    return st.builds(
        Fault,
        kind=st.sampled_from(sorted(kinds, key=lambda kind: kind.value)),
        way=st.sampled_from(("out", "in")),
        message=st.integers(1, messages),
        connection=st.none() | st.integers(1, connections),
        seconds=st.sampled_from((0.0, 0.5, 5.0, 60.0)),
    )


def fault_plans(
    *,
    kinds: Iterable[FaultKind] = FaultKind,
    most: int = 5,
    messages: int = 20,
    connections: int = 3,
) -> st.SearchStrategy[FaultPlan]:
    """A plan with up to `most` faults, and now and then an attempt to connect that fails."""
    return st.builds(
        FaultPlan,
        faults=st.lists(faults(kinds=kinds, messages=messages, connections=connections), max_size=most).map(
            tuple
        ),
        failing_connects=st.lists(st.integers(1, connections), max_size=2, unique=True).map(tuple),
    )
