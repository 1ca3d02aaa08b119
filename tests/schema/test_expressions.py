"""Regular expressions of a schema: what is read as ECMA 262 has it, what is refused, and what one weighs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyio_mcp._schema.expressions import (
    MAX_WEIGHT,
    MOST_STEPS_AT_ONCE,
    Expression,
    UnsupportedExpressionError,
)

UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        (UUID, "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
        (r"^\d{4}-\d{2}-\d{2}$", "2026-01-31", "2026-01-31\n"),
        (r"^\d$", "7", "\u0667"),
        (r"^\w+$", "a_1", "é"),
        (r"^\s$", "\u2003", "\x1c"),
        (r"^\S$", "é", "\ufeff"),
        (r"^.$", "é", "\u2028"),
        (r"^.$", "😀", "\r"),
        (r"\bfoo\b", "a foo b", "afoob"),
        (r"^[^@\s]+@[^@\s]+\.[a-z]+$", "someone@example.org", "some one@example.org"),
        (r"^(?:[0-9a-f]{2}:)*[0-9a-f]{2}$", "00:1b:44", "00:1b:4"),
        ("^[A-Za-z0-9+/]*={0,2}$", "x" * 10_000 + "==", "x" * 10_000 + "==="),
        (r"^(?<year>[0-9]{4})$", "2026", "26"),
        (r"^\(a\+\)\/\-$", "(a+)/-", "a"),
        (r"^[\w.-]+$", "a.b-c", "a b"),
        (r"^[\]\\^-]+$", "]\\^-", "a"),
        (r"^[^\D]$", "5", "a"),
        (r"^\u00e9\x41\u{1F600}$", "éA😀", "éA"),
        (r"^[\b]$", "\b", "b"),
        (r"^a{2,3}?b{2,}$", "aabb", "ab"),
        (r"^\0$", "\0", "0"),
        ("^(a|b|)$", "", "c"),
        ("^#[ ]~&&--$", "# ~&&--", "#~"),
        ("^[a&&b~~c]+$", "&~abc", "d"),
        ("", "anything", None),
    ],
)
def test_a_pattern_means_what_ecma_262_says(pattern: str, fits: str, fails: str | None) -> None:
    expression = Expression(pattern)
    assert expression.matches(fits)
    assert fails is None or not expression.matches(fails)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        "(?<!a)",
        "(?i)a",
        "(?x)^(a+) +$",
        "(?i:a)",
        "(?P<n>a)",
        "(?>a)",
        "(a)\\1",
        "\\k<n>",
        "\\p{L}",
        "\\P{L}",
        "\\A",
        "\\z",
        "\\Qa\\E",
        "\\a",
        "\\cA",
        "\\B",
        "\\01",
        "\\",
        "a++",
        "*a",
        "^*",
        "a{2}{3}",
        "{",
        "}",
        "a{b}",
        "]",
        "[",
        "[]",
        "[^]",
        "[b-a]",
        "[\\d-z]",
        "(",
        ")",
        "((",
        "a{3,2}",
        "\\ud800",
        "\ud800",
        "\\u{110000}",
        "x" * 5_000,
        "(" * 60 + ")" * 60,
        "(?:(?:a{100}){100}){100}",
        "[^a]{1000}",
        r"\S{500}",
    ],
)
def test_what_is_not_understood_or_too_heavy_is_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedExpressionError):
        Expression(pattern)


@pytest.mark.parametrize(
    ("pattern", "least"),
    [("a{100}", 100), ("(?:a{10}){10}", 100), ("(?:ab|cd){50}", 200), ("a{5,20}", 20), ("a{20,}", 20)],
)
def test_a_repetition_weighs_as_if_it_were_written_out(pattern: str, least: int) -> None:
    assert least <= Expression(pattern).weight <= MAX_WEIGHT


def test_a_heavy_pattern_on_a_long_text_is_known_to_be_costly_beforehand() -> None:
    heavy = Expression("[ab]*a[ab]{500}c")
    assert heavy.cost("ab" * 10) < 1_000
    assert heavy.cost("ab" * 100_000) > MOST_STEPS_AT_ONCE
    assert Expression("^[a-z]+$").cost("a" * 500_000) <= MOST_STEPS_AT_ONCE


PARTS = st.sampled_from(
    [*"ab.^$|()*+?", "ab", "(?:", "{2}", "{1,2}", "[ab]", "[^a]", r"\w", r"\d"],
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PARTS, max_size=8).map("".join), st.lists(st.text("ab1", max_size=6), min_size=1, max_size=4))
def test_what_is_understood_matches_what_pythons_engine_matches(pattern: str, texts: list[str]) -> None:
    try:
        ours = Expression(pattern)
    except UnsupportedExpressionError:
        return
    theirs = re.compile(pattern, re.ASCII)
    for text in texts:
        assert ours.matches(text) == (theirs.search(text) is not None)
