"""Writes docs/faults.md: every cell of the matrix and its outcome, cells of the same outcome together.

    python -m tests.faults.document

Knows cells only by what they say of themselves, and runs none.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults import areas
from tests.faults.matrix import Cell, Outcome

PAGE: Final = Path(__file__).parents[2] / "docs" / "faults.md"

HEAD: Final = """\
# What becomes of every fault

Written by `python -m tests.faults.document` from the cells that `tests/faults/test_matrix.py` runs, on
asyncio and on trio: {cells} cells, one per fault, phase and era. Each proves the outcome below, that a
call made afterwards on the same client works once the fault is mended, that the caller's own tasks were
not touched, and that no task, socket or child process is left.

*Phase*: while connecting, with a call in flight, idle (between calls: notifications and the server's own
stream), closing. *Era*: legacy is the handshake up to 2025-11-25, modern is 2026-07-28.

A line without a fault says more of the one above it; “…” is a variant of it.

*Session*: whether the very session goes on. One that is lost is replaced by the next call.

*Bound* is the one that applies with default settings: `connect` 30 s, `call` 300 s (which progress extends
up to `total`, 1 h), `heartbeat` 15 s of silence and 10 s to answer, `close` 5 s. *At once* means as soon
as the fault can be seen. In virtual time the tests keep these bounds to the millisecond; over sockets and
processes they run with shorter settings.
"""


class Row(NamedTuple):
    """What one line of a table says."""

    fault: str
    phases: str
    eras: str
    outcome: str
    session: str
    bound: str


def page(cells: list[Cell]) -> str:
    """The whole page."""
    parts = [HEAD.format(cells=len(cells))]
    # A table per area, in the order in which areas first appear.
    for area in dict.fromkeys(cell.area for cell in cells):
        table = [Row("Fault", "Phase", "Era", "The caller gets", "Session", "Bound")]
        table.append(Row(*["---"] * len(Row._fields)))
        table += rows([cell for cell in cells if cell.area == area])
        title = area[0].upper() + area[1:]
        parts.append(f"## {title}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n")
    return "\n".join(parts)


def rows(cells: Iterable[Cell]) -> list[Row]:
    """One row for cells that differ in the era only, then in the phase, then in the variant of a fault;
    then one block of rows for faults that differ in their name only."""
    lines = [
        Row(cell.fault, cell.phase, cell.era, _outcome(cell), _session(cell), _bound(cell)) for cell in cells
    ]
    lines = _merge(lines, "eras")
    lines = _merge(lines, "phases")
    lines = [line._replace(eras="both" if ", " in line.eras else line.eras) for line in lines]
    # Of each fault: its variants, and what is said of them.
    faults: dict[str, dict[Row, list[str]]] = {}
    for line in lines:
        fault, _, variant = line.fault.partition("; ")
        faults.setdefault(fault, {}).setdefault(line._replace(fault=""), []).append(variant)
    alike: dict[str, list[str]] = {}
    for fault, said in faults.items():
        alike.setdefault(repr(said), []).append(fault)
    return [row for names in alike.values() for row in _block("<br>".join(names), faults[names[0]])]


def _merge(lines: list[Row], column: str) -> list[Row]:
    """Lines that differ in nothing but `column` become one, at the place of the first."""
    merged: dict[Row, list[str]] = {}
    for line in lines:
        merged.setdefault(line._replace(**{column: ""}), []).append(getattr(line, column))
    return [line._replace(**{column: ", ".join(values)}) for line, values in merged.items()]


def _block(fault: str, said: dict[Row, list[str]]) -> list[Row]:
    """The rows of one fault. Its name stands in the first."""
    block: list[Row] = []
    for line, variants in said.items():
        named = "<br>".join(f"… {variant}" for variant in variants if variant)
        name = "" if block else fault
        block.append(line._replace(fault="<br>".join(part for part in (name, named) if part)))
    return block


def _outcome(cell: Cell) -> str:
    outcome = cell.outcome
    if outcome.raises is None:
        if outcome.note:
            return outcome.note
        return "leaves in time" if cell.phase == "closing" else "nothing: it works"
    facts = ", ".join(
        f"`{name.replace('__cause__.', 'cause.')}` {_shown(name, value, cell)}"
        for name, value in outcome.attributes.items()
        if _is_told(name, value)
    )
    text = f"`{outcome.raises.__name__}`"
    if facts:
        text += f" ({facts})"
    if outcome.cause is not None:
        text += f" from `{outcome.cause.__name__}`"
    if outcome.note:
        text += f"; {outcome.note}"
    return text


def _is_told(name: str, value: object) -> bool:
    # Seconds are those of shortened settings; the bound says what they are by default.
    return name != "seconds" and value not in (None, ()) and isinstance(value, bool | int | str | tuple)


def _shown(name: str, value: object, cell: Cell) -> str:
    if name.endswith("status_code") and str(value) in cell.fault:
        return "as it came"  # so that statuses of the same outcome read as one
    if isinstance(value, tuple):
        return ", ".join(f"“{each}”" for each in value)
    return str(value)


def _session(cell: Cell) -> str:
    if cell.phase == "closing":
        return "ended"
    if cell.phase == "connecting" and cell.outcome.raises is not None:
        return "none"
    return "goes on" if cell.outcome.survives else "replaced"


def _bound(cell: Cell) -> str:
    if cell.bound:
        return cell.bound
    named = _bound_of(cell.outcome)
    if named:
        return named
    if cell.phase == "closing" and cell.within:
        return "close"
    if cell.clock == "virtual" and cell.within:
        return f"{cell.within:g} s"
    return "at once"


def _bound_of(outcome: Outcome) -> str:
    if "phase" in outcome.attributes:
        return str(outcome.attributes["phase"])
    return "heartbeat" if outcome.attributes.get("reason") == "silent" else ""


def main() -> None:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(areas.CELLS))


if __name__ == "__main__":
    main()
