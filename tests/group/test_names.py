"""Names of a group: unique by construction, read in one way only."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_mcp.group.names import URI_MARK, Naming, split

TEXT = st.text(alphabet="ab_+-. ", min_size=1, max_size=5)


def admitted(naming: Naming, names: list[str]) -> dict[str, str]:
    """The prefixes of those names that are accepted next to those before them."""
    taken: dict[str, str] = {}
    for name in names:
        try:
            taken[name] = naming.prefix_of(name, taken)
        except ValueError:
            continue
    return taken


@given(
    names=st.lists(TEXT, unique=True, max_size=6),
    separator=st.sampled_from(["_", "__", "-", "+", "a"]),
    own=st.lists(st.text(alphabet="ab_+-.", min_size=1, max_size=6), min_size=1, max_size=4),
)
def test_a_name_that_was_given_out_leads_back_to_its_server(
    names: list[str], separator: str, own: list[str]
) -> None:
    prefixes = admitted(Naming(separator=separator), names)
    for mark in (separator, URI_MARK):
        given_out = [
            (f"{prefix}{mark}{each}", server, each) for server, prefix in prefixes.items() for each in own
        ]
        assert len({name for name, _, _ in given_out}) == len({(s, each) for _, s, each in given_out})
        for name, server, each in given_out:
            assert split(name, mark, prefixes) == (server, each)


@pytest.mark.parametrize(
    ("one", "other", "separator"),
    [
        ("git", "git_hub", "_"),
        ("git_hub", "git", "_"),
        ("a", "a__b", "__"),
        ("a", "a+b", "_"),
        ("a_b", "a_b_c", "_"),
    ],
)
def test_servers_whose_names_could_be_read_in_two_ways_are_refused(
    one: str, other: str, separator: str
) -> None:
    naming = Naming(separator=separator)
    with pytest.raises(ValueError, match="two ways") as caught:
        naming.prefix_of(other, {one: naming.prefix_of(one, {})})
    assert repr(one) in str(caught.value)
    assert repr(other) in str(caught.value)
    assert "separator=" in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "separator"),
    [("git", "github", "_"), ("a", "a_b", "__"), ("a", "a.b", "_"), ("a", "A", "_")],
)
def test_names_that_only_look_alike_are_accepted(one: str, other: str, separator: str) -> None:
    naming = Naming(separator=separator)
    assert naming.prefix_of(other, {one: one}) == other


def test_two_servers_of_one_prefix_are_refused() -> None:
    naming = Naming(prefix=str.lower)
    assert naming.prefix_of("Docs", {}) == "docs"
    with pytest.raises(ValueError, match="two ways"):
        naming.prefix_of("docs", {"Docs": "docs"})


def nothing(server: str) -> Any:
    return None


@pytest.mark.parametrize(
    ("options", "kind", "why"),
    [
        ({"separator": ""}, ValueError, "separator must have"),
        ({"separator": "\n"}, ValueError, "separator must have"),
        ({"separator": 1}, TypeError, "separator must be a str"),
        ({"prefix": "x"}, TypeError, "prefix must be a function"),
    ],
)
def test_what_makes_no_names_is_refused(options: Any, kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why):
        Naming(**options)


@pytest.mark.parametrize(
    ("prefix", "kind"), [(lambda _: "", ValueError), (lambda _: "a\nb", ValueError), (nothing, TypeError)]
)
def test_a_prefix_that_is_none_is_refused(prefix: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="the prefix of server 'a' must"):
        Naming(prefix=prefix).prefix_of("a", {})


@pytest.mark.parametrize("name", ["", "a", "a_", "b_x", "_x", "ax", "x_a_y"])
def test_a_name_of_no_server_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match="begin with 'a_', 'c_'"):
        split(name, "_", {"a": "a", "c": "c"})


def test_an_empty_group_says_so_and_a_long_name_is_cut() -> None:
    with pytest.raises(ValueError, match="it is empty") as caught:
        split("x" * 100_000, "_", {})
    assert len(str(caught.value)) < 300
