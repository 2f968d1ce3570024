"""What evidence of consent adds up to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.consent import CONFIRMED, Evidence, State, state_after
from dispatcher.consent.rules import can_be_confirmed, expiry_of

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


# --- other bases than consent

BASES = ("implied_purchase", "implied_inquiry", "soft_opt_in")


def bought(at: datetime, *, basis: str = "implied_purchase", number: int = 1, address: int = ADDRESS) -> Evidence:
    received = at + timedelta(days=3000)
    return Evidence(number, "granted", "shop", at, received, address, None, "order", basis)


def day(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}T10:00:00+00:00")


@pytest.mark.parametrize(
    ("basis", "since", "until"),
    [
        ("implied_purchase", "2026-01-15", "2028-01-15"),
        ("implied_purchase", "2024-02-29", "2026-02-28"),
        ("implied_inquiry", "2026-08-31", "2027-02-28"),
        ("implied_inquiry", "2026-06-30", "2026-12-30"),
        ("implied_inquiry", "2026-07-01", "2027-01-01"),
        ("soft_opt_in", "2026-12-31", "2028-12-31"),
    ],
)
def test_another_basis_ends_after_its_calendar_months(basis: str, since: str, until: str) -> None:
    state = state_after([bought(day(since), basis=basis)], ADDRESS)

    assert state == State("granted", day(since), False, ADDRESS, 1, basis, day(until))


def test_a_newer_purchase_extends_and_an_older_one_does_not_shorten() -> None:
    newer, older = bought(day("2026-05-01"), number=1), bought(day("2025-05-01"), number=2)
    inquiry = bought(day("2026-06-01"), basis="implied_inquiry", number=3)

    for evidence in ([newer, older, inquiry], [newer, older], [newer]):
        state = state_after(evidence, ADDRESS)
        assert state is not None
        assert (state.basis, state.expires_at) == ("implied_purchase", day("2028-05-01"))


def test_consent_supersedes_a_purchase_and_has_no_end() -> None:
    said = Evidence(5, "granted", "person", day("2026-02-01"), day("2026-02-01"), ADDRESS)
    for other in (bought(day("2026-01-01")), bought(day("2026-03-01"), number=9)):
        state = state_after([said, other], ADDRESS)
        assert state is not None
        assert (state.basis, state.expires_at, state.event_id) == ("consent", None, 5)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("actor", ["person", *OTHERS])
def test_no_purchase_passes_a_withdrawal_not_even_a_later_one(basis: str, actor: str) -> None:
    no = Evidence(1, "withdrawn", "person", day("2026-01-01"), day("2026-01-01"), ADDRESS)
    later = Evidence(2, "granted", actor, day("2026-02-01"), day("2026-02-01"), ADDRESS, CONFIRMED, "x", basis)

    state = state_after([no, later], ADDRESS)

    assert state is not None
    assert state.state == "withdrawn"


def test_a_purchase_for_a_former_address_or_dated_ahead_grants_no_more() -> None:
    assert state_after([bought(day("2026-01-01"), address=FORMER)], ADDRESS) is None
    ahead = Evidence(1, "granted", "shop", day("2030-01-01"), day("2026-01-01"), ADDRESS, None, "x", "implied_purchase")
    state = state_after([ahead], ADDRESS)
    assert state is not None
    assert state.expires_at == day("2028-01-01")


# --- against a naive reading of the design, in every order of arrival

claims = st.builds(
    lambda action, actor, at, late, address, level, basis: (action, actor, at, late, address, level, basis),
    st.sampled_from(ACTIONS),
    st.sampled_from(("person", *OTHERS)),
    st.integers(0, 6),
    st.integers(0, 9),
    st.sampled_from((ADDRESS, ADDRESS, FORMER)),
    st.sampled_from((None, "single_opt_in", CONFIRMED)),
    st.sampled_from(("consent", "consent", *BASES)),
)
Claim = tuple[str, str, int, int, int, str | None, str]


def naive(history: list[Claim]) -> tuple[str, bool, str | None]:
    """Return state, confirmed and basis as design.md says them, sentence by sentence; no sorting, no maximum."""

    def allowed(one: Claim) -> bool:
        action, actor, at, _, address, _, basis = one
        if action != "granted" or address != ADDRESS:  # a changed address voids consent for that address
            return False
        for other in history:
            if other[0] == "withdrawn" and (
                actor != "person"  # import, webhook and operator never grant after a withdrawal, whenever they say so
                or basis != "consent"  # a basis never passes a withdrawal
                or other[2] >= at  # only a later act; a tie goes to the withdrawal
            ):
                return False
        return True

    express = [one for one in history if allowed(one) and one[6] == "consent"]
    if express:
        return "granted", any(one[5] == CONFIRMED for one in express), "consent"
    if any(one[0] == "withdrawn" for one in history):
        return "withdrawn", False, None
    implied = [one for one in history if allowed(one)]
    if implied:
        ends = {(expiry_of(one[6], hour(one[2])), one[6]) for one in implied}
        return "granted", False, next(basis for end, basis in ends if all((end, basis) >= other for other in ends))
    if any(one[0] == "requested" and one[4] == ADDRESS for one in history):
        return "pending", False, None
    return "none", False, None


@given(st.lists(claims, max_size=7), st.randoms(use_true_random=False))
def test_every_history_in_every_order_of_arrival_is_as_the_design_says(history: list[Claim], chance: Random) -> None:
    """All arrive after they occurred, each as late as it likes: what they add up to is the same."""
    arriving = list(history)
    chance.shuffle(arriving)
    evidence = [
        Evidence(number, action, actor, hour(at), hour(20 + number + late), address, level, "x", basis)
        for number, (action, actor, at, late, address, level, basis) in enumerate(arriving, 1)
    ]
    state = state_after(evidence, ADDRESS)

    assert naive(history) == ((state.state, state.confirmed, state.basis) if state else ("none", False, None))


@given(st.lists(st.tuples(claims, st.integers(0, 9)), max_size=7))
def test_what_is_dated_ahead_of_its_arrival_counts_from_its_arrival(history: list[tuple[Claim, int]]) -> None:
    """Piece by piece an hour apart; what others tell of may be dated up to nine hours ahead."""
    evidence, counted = [], []
    for number, ((action, actor, at, _, address, level, basis), ahead) in enumerate(history, 1):
        received = 7 + number
        occurred = at if actor == "person" else at + ahead
        evidence.append(Evidence(number, action, actor, hour(occurred), hour(received), address, level, "x", basis))
        counted.append((action, actor, min(occurred, received), 0, address, level, basis))
    state = state_after(evidence, ADDRESS)

    assert naive(counted) == ((state.state, state.confirmed, state.basis) if state else ("none", False, None))


@given(st.lists(claims, max_size=6), st.integers(0, 6), st.integers(0, 6))
def test_a_request_can_be_confirmed_until_a_withdrawal_that_is_not_older(
    history: list[Claim], asked: int, number: int
) -> None:
    pieces = [
        Evidence(place, action, actor, hour(at), hour(50), address, level, "x", basis)
        for place, (action, actor, at, _, address, level, basis) in enumerate(history, 1)
    ]
    pieces.insert(min(number, len(pieces)), Evidence(99, "requested", "import", hour(asked), hour(50), ADDRESS))

    expected = not any(one[0] == "withdrawn" and one[2] >= asked for one in history)
    assert can_be_confirmed(pieces, 99) == expected
    assert not can_be_confirmed(pieces, 100)
