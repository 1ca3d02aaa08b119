"""`docs/compared.md` names tests that exist, and every row has one or says what is done instead."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compared.md"
_NAMED = re.compile(r"`(tests/[\w/.]+\.py)::(\w+)`")


def rows() -> list[tuple[str, str, str]]:
    """The rows of every table: what is promised elsewhere, what is here, the test."""
    found: list[tuple[str, str, str]] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|") or set(line) <= set("|- "):
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert len(cells) == 3, line
        found.append((cells[0], cells[1], cells[2]))
    return [row for row in found if row[2] != "test"]


@cache
def functions_of(path: str) -> frozenset[str]:
    """The names of the test functions of a file; none if there is no such file."""
    if not (ROOT / path).is_file():
        return frozenset()
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def complaint(row: tuple[str, str, str]) -> str | None:
    """What is wrong with a row."""
    promised, here, proof = row
    named = _NAMED.findall(proof)
    missing = [name for path, name in named if name not in functions_of(path)]
    if not promised or not here:
        return f"an empty cell: {row}"
    if missing:
        return f"there is no test {missing}: {promised}"
    if not named and proof != "none":
        return f"{proof!r} names no test: {promised}"
    # Without a test may be only what is not here, and the row has to say why, or what there is instead.
    if not named and not here.startswith("not here: "):
        return f"neither a test nor a reason: {promised}"
    return None


def test_the_page_is_about_both_clients() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "\n## FastMCP's client\n" in text
    assert "\n## The SDK's client\n" in text
    assert len(rows()) > 200


def test_every_row_names_a_test_that_exists_or_says_what_is_done_instead() -> None:
    assert [found for row in rows() if (found := complaint(row))] == []


def test_every_difference_that_keeps_a_test_of_theirs_from_running_is_a_row() -> None:
    text = (ROOT / "tests" / "peers" / "deselected.toml").read_text(encoding="utf-8")
    reasons = [reason for peer in tomllib.loads(text).values() for reason in peer]
    prefix = "difference: "
    differences = {reason.removeprefix(prefix) for reason in reasons if reason.startswith(prefix)}
    assert len(differences) > 10
    assert differences <= {promised for promised, _, _ in rows()}


def test_a_row_that_is_wrong_is_found() -> None:
    file = "tests/compared/test_page.py"
    good = ("x", "the same", f"`{file}::test_a_row_that_is_wrong_is_found`")
    assert complaint(good) is None
    assert complaint(("x", "not here: because", "none")) is None
    for wrong in (
        ("x", "the same", f"`{file}::test_nothing`"),
        ("x", "the same", "`tests/compared/test_nowhere.py::test_nothing`"),
        ("x", "the same", "none"),
        ("x", "the same", "some test"),
        ("", "the same", good[2]),
    ):
        assert complaint(wrong) is not None
