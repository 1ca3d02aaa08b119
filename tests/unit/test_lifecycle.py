"""The states of a session and the leases that keep it open."""

from __future__ import annotations

import itertools

import pytest

from anyio_mcp._session.lifecycle import IllegalTransitionError, Leases, Lifecycle, SessionState

NEW, CONNECTING, READY, CLOSING, CLOSED = SessionState

LEGAL = {
    (NEW, CONNECTING),
    (NEW, CLOSING),
    (CONNECTING, READY),
    (CONNECTING, CLOSING),
    (READY, CLOSING),
    (CLOSING, CLOSED),
}


def test_a_session_starts_new() -> None:
    assert Lifecycle().state is NEW


def test_every_pair_of_states_is_a_legal_step_or_an_error_that_names_both() -> None:
    for now, to in itertools.product(SessionState, repeat=2):
        lifecycle = Lifecycle(now)
        if (now, to) in LEGAL:
            lifecycle.advance(to)
            assert lifecycle.state is to
        else:
            with pytest.raises(IllegalTransitionError, match=f"from {now.value} to {to.value}"):
                lifecycle.advance(to)
            assert lifecycle.state is now, "a refused step changes nothing"


def test_a_session_is_over_as_soon_as_it_is_closing() -> None:
    assert [Lifecycle(state).is_over for state in SessionState] == [False, False, False, True, True]


def test_an_illegal_transition_is_a_bug_of_ours_and_no_error_users_catch() -> None:
    assert not issubclass(IllegalTransitionError, RuntimeError)


def test_a_lease_is_held_until_it_is_given_back() -> None:
    leases = Leases()
    lease = leases.take("me")
    assert lease in leases
    assert len(leases) == 1
    assert leases.give_back(lease) is True
    assert lease not in leases
    assert len(leases) == 0


def test_only_the_last_one_out_hears_so_in_any_order() -> None:
    for order in itertools.permutations(range(4)):
        leases = Leases()
        held = [leases.take("me") for _ in order]
        assert [leases.give_back(held[index]) for index in order] == [False, False, False, True]


def test_giving_back_twice_is_harmless() -> None:
    leases = Leases()
    mine, other = leases.take("me"), leases.take("other")
    assert leases.give_back(mine) is False
    assert leases.give_back(mine) is False
    assert other in leases
    assert leases.give_back(other) is True
    assert leases.give_back(other) is False


def test_two_leases_of_one_holder_are_two() -> None:
    leases = Leases()
    first, second = leases.take("me"), leases.take("me")
    assert first != second
    leases.give_back(first)
    assert second in leases


def test_revoked_leases_are_no_longer_held_and_giving_them_back_tells_nobody() -> None:
    leases = Leases()
    held = [leases.take("me"), leases.take("you")]
    leases.revoke_all()
    assert len(leases) == 0
    assert [leases.give_back(lease) for lease in held] == [False, False]


def test_a_lease_taken_after_revoking_is_a_new_one() -> None:
    leases = Leases()
    old = leases.take("me")
    leases.revoke_all()
    new = leases.take("me")
    assert leases.give_back(old) is False
    assert new in leases
    assert leases.give_back(new) is True


def test_a_lease_of_somebody_else_is_not_held_here() -> None:
    lease = Leases().take("me")
    leases = Leases()
    assert lease not in leases
    assert leases.give_back(lease) is False


def test_holders_are_named_oldest_first() -> None:
    leases = Leases()
    a, _, _ = leases.take("a"), leases.take("b"), leases.take("a")
    leases.give_back(a)
    assert list(leases.holders()) == ["b", "a"]
