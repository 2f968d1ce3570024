"""What evidence of consent adds up to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.consent import CONFIRMED, Evidence, State, state_after

START = datetime(2026, 1, 1, tzinfo=UTC)
ADDRESS, FORMER = 1, 2
History = list[tuple[str, str, int, int, str | None]]  # action, actor, hour it occurred, address, opt-in level
ACTIONS, OTHERS = ("requested", "granted", "withdrawn"), ("import", "shop", "operator")


def hour(number: int) -> datetime:
    return START + timedelta(hours=number)


def piece(
    action: str,
    actor: str,
    at: int,
    *,
    received: int = 100,
    number: int = 1,
    address: int = ADDRESS,
    level: str | None = None,
) -> Evidence:
    return Evidence(number, action, actor, hour(at), hour(received), address, level)


def told(*pieces: tuple[str, str, int]) -> str | None:
    """Return the state after (action, actor, hour it occurred), all received much later, in this order."""
    state = state_after([piece(*p, number=n) for n, p in enumerate(pieces, 1)], ADDRESS)
    return state.state if state else None


pieces = st.builds(
    lambda action, actor, at, address, level: (action, actor, at, address, level),
    st.sampled_from(ACTIONS),
    st.sampled_from(("person", *OTHERS)),
    st.integers(0, 8),
    st.sampled_from((ADDRESS, ADDRESS, FORMER)),
    st.sampled_from((None, CONFIRMED)),
)
histories = st.lists(pieces, max_size=8)


def evidence_of(history: History) -> list[Evidence]:
    return [
        piece(action, actor, at, number=number, address=address, level=level)
        for number, (action, actor, at, address, level) in enumerate(history, 1)
    ]


@pytest.mark.parametrize("actor", ["person", "import", "shop", "operator"])
def test_nothing_is_none_and_each_action_has_its_state(actor: str) -> None:
    assert told() is None
    assert told(("requested", actor, 1)) == "pending"
    assert told(("granted", actor, 1)) == "granted"
    assert told(("withdrawn", actor, 1)) == "withdrawn"


@pytest.mark.parametrize("actor", OTHERS)
def test_only_the_person_grants_after_a_withdrawal(actor: str) -> None:
    assert told(("withdrawn", "person", 1), ("granted", actor, 2)) == "withdrawn"
    assert told(("granted", actor, 2), ("withdrawn", "person", 1)) == "withdrawn"
    assert told(("withdrawn", actor, 1), ("granted", actor, 2)) == "withdrawn"
    assert told(("withdrawn", actor, 1), ("granted", "person", 2)) == "granted"


def test_a_tie_goes_to_the_withdrawal() -> None:
    assert told(("granted", "person", 1), ("withdrawn", "person", 1)) == "withdrawn"
    assert told(("withdrawn", "import", 1), ("granted", "person", 1)) == "withdrawn"


def test_older_evidence_does_not_override_the_persons_later_word() -> None:
    assert told(("granted", "person", 3), ("withdrawn", "person", 2)) == "granted"
    assert told(("withdrawn", "person", 3), ("granted", "person", 2)) == "withdrawn"


def test_a_request_waits_only_where_nothing_was_said() -> None:
    assert told(("granted", "import", 1), ("requested", "person", 2)) == "granted"
    assert told(("withdrawn", "person", 1), ("requested", "person", 2)) == "withdrawn"


def test_evidence_from_the_future_counts_from_its_arrival() -> None:
    future = piece("granted", "import", 500, received=10)

    assert state_after([future], ADDRESS) == State("granted", hour(10), False, ADDRESS, 1, "consent")


def test_a_grant_holds_for_its_address_and_a_withdrawal_for_the_person() -> None:
    assert state_after([piece("granted", "person", 1, address=FORMER)], ADDRESS) is None
    withdrawn = state_after([piece("withdrawn", "person", 1, address=FORMER)], ADDRESS)
    assert withdrawn is not None
    assert withdrawn.state == "withdrawn"


def test_one_confirmed_opt_in_is_enough_until_a_withdrawal() -> None:
    grants = [piece("granted", "import", 1, level=CONFIRMED), piece("granted", "import", 2, number=2)]
    confirmed = state_after(grants, ADDRESS)
    again = state_after(
        [*grants, piece("withdrawn", "person", 3, number=3), piece("granted", "person", 4, number=4)], ADDRESS
    )

    assert confirmed is not None
    assert confirmed.confirmed
    assert again is not None
    assert not again.confirmed


@given(histories, st.permutations(range(8)))
def test_the_order_of_arrival_does_not_matter(history: History, order: list[int]) -> None:
    shuffled = [history[index] for index in order if index < len(history)]
    states = [state_after(evidence_of(each), ADDRESS) for each in (history, shuffled)]

    assert len({state and (state.state, state.effective_at, state.confirmed) for state in states}) == 1


attempts = st.lists(st.tuples(st.sampled_from(("requested", "granted")), st.sampled_from(OTHERS), st.integers(0, 20)))


@given(histories, attempts)
def test_nobody_else_undoes_a_withdrawal(history: History, attempts: list[tuple[str, str, int]]) -> None:
    evidence = evidence_of(history)
    before = state_after(evidence, ADDRESS)
    evidence += [piece(*attempt, number=100 + number) for number, attempt in enumerate(attempts)]
    after = state_after(evidence, ADDRESS)

    if before is not None and before.state == "withdrawn":
        assert after == before


@given(histories, st.integers(-50, 50))
def test_a_withdrawal_now_always_holds_even_if_the_clock_was_set_back(history: History, now: int) -> None:
    click = Evidence(1_000, "withdrawn", "person", hour(now), hour(now), ADDRESS)
    state = state_after([*evidence_of(history), click], ADDRESS)

    assert state is not None
    assert state.state == "withdrawn"


@given(histories)
def test_granted_means_granted_here_and_not_withdrawn_since(
    history: History,
) -> None:
    state = state_after(evidence_of(history), ADDRESS)
    withdrawn = [at for action, _, at, _, _ in history if action == "withdrawn"]
    grants = [(actor, at) for action, actor, at, address, _ in history if (action, address) == ("granted", ADDRESS)]
    standing = [at for actor, at in grants if not withdrawn or (actor == "person" and at > max(withdrawn))]

    expected = "granted" if standing else "withdrawn" if withdrawn else None
    if expected is None and any(h[0] == "requested" and h[3] == ADDRESS for h in history):
        expected = "pending"
    assert (state.state if state else None) == expected
    assert state is None or expected != "granted" or state.effective_at == hour(max(standing))
