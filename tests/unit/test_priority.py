"""Who goes first, played through: small worlds of one person, moved by nothing but repeated `decide`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count, permutations

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.caps import room_under
from dispatcher.definitions import Cap, Silence
from dispatcher.facts import Counted, Facts, Rank, Rival, RunFacts
from dispatcher.gates import SEND, Defer, Reason, Skip, decide
from dispatcher.places import Place, Places
from dispatcher.quiet_hours import LocalSilence

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LONDON = Places((Place("Europe/London", None, None, "stated zone"),))
NIGHT = (LocalSilence("Europe/London", (Silence.model_validate("20:00-09:00"),), (), "shop"),)
#: Nobody is asked so often: whoever is asked must have moved, or have been told a later time.
PATIENCE = 500


@dataclass(frozen=True)
class Plan:
    """A message that a run wrote for the person."""

    name: str
    priority: int
    first_due_at: datetime
    expires_at: datetime
    channel: str = "email"
    topic: str = "offers"
    on_cap: str = "skip"

    @property
    def rank(self) -> Rank:
        return -self.priority, self.first_due_at, self.name, "once"


@dataclass
class World:
    """One person, the caps that protect them, and what became of their messages."""

    caps: tuple[Cap, ...]
    plans: dict[str, Plan]
    order: list[str]  #: who is asked first of those who are due at one instant
    silences: tuple[LocalSilence, ...] = ()
    gone: frozenset[str] = frozenset()  #: those whose topic was withdrawn: never sent, and found out when asked
    due: dict[str, datetime] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)  #: outranked, and by whom
    sent: dict[str, datetime] = field(default_factory=dict)
    skipped: dict[str, Reason] = field(default_factory=dict)

    def play(self) -> World:
        """Ask whoever is due next, as the ledger would, until nothing is pending."""
        self.due = {name: plan.first_due_at for name, plan in self.plans.items()}
        now = min(self.due.values())
        for asked in count():
            if not self.due:
                return self
            assert asked < PATIENCE, "they wait for each other"
            name = min(self.due, key=lambda name: (self.due[name], self.order.index(name)))
            now = max(now, self.due[name])
            self._ask(name, now)
        raise AssertionError

    def _ask(self, name: str, now: datetime) -> None:
        verdict = decide(self.facts(name, now), now)
        self.waiting.pop(name, None)
        if isinstance(verdict, Defer):
            assert now < verdict.until < self.plans[name].expires_at
            self.due[name] = verdict.until
            if verdict.reason is Reason.OUTRANKED:
                self._wake([loser for loser, winner in self.waiting.items() if winner == name], now)
                self.waiting[name] = verdict.facts["winner"]
                return
        else:
            del self.due[name]
            if verdict == SEND:
                self.sent[name] = now
            else:
                assert isinstance(verdict, Skip)
                self.skipped[name] = verdict.reason
        self._wake(list(self.waiting), now)

    def _wake(self, losers: list[str], now: datetime) -> None:
        for loser in losers:
            self.due[loser] = max(now, self.plans[loser].first_due_at)
            del self.waiting[loser]

    def facts(self, name: str, now: datetime) -> Facts:
        plan = self.plans[name]
        run = RunFacts(
            state="running", stopped=False, channel=plan.channel, topic=plan.topic, class_="marketing",
            on_cap=plan.on_cap,
            caps=tuple(c for c in self.caps if plan.channel in c.channels and (not c.topics or plan.topic in c.topics)),
        )  # fmt: skip
        return Facts(
            run, 1, plan.expires_at, address_id=1, consent="withdrawn" if name in self.gone else "granted",
            places=LONDON, silences=self.silences, counted=self.counted(), rank=plan.rank,
            rivals=self._rivals(name, now),
        )  # fmt: skip

    def counted(self) -> tuple[Counted, ...]:
        plans = ((self.plans[name], at) for name, at in self.sent.items())
        return tuple(Counted(at, plan.channel, plan.topic, to_contact=True, to_address=True) for plan, at in plans)

    def _rivals(self, name: str, now: datetime) -> tuple[Rival, ...]:
        others = [self.plans[other] for other in self.due if other != name]
        rivals = (
            Rival(p.name, p.name, p.name, "once", p.channel, p.topic, p.priority, p.first_due_at, self.due[p.name],
                  p.expires_at)
            for p in others if p.expires_at > now
        )  # fmt: skip
        return tuple(sorted(rivals, key=lambda rival: rival.rank))

    def check_caps(self) -> None:
        """Check every window that ends with a sending."""
        for cap in self.caps:
            for at in self.sent.values():
                seen = tuple(c for c in self.counted() if c.at <= at)
                facts = replace(self.facts(next(iter(self.sent)), at), counted=seen)
                most = 1 if cap.min_gap is not None else cap.max or 0
                assert room_under(cap, facts, at).counted <= most, (cap, self.sent)


hours = st.integers(0, 30).map(lambda n: timedelta(hours=n))


@st.composite
def any_cap(draw: st.DrawFn) -> Cap:
    scope = {
        "name": draw(st.sampled_from("abc")),
        "channels": draw(st.sampled_from([("email",), ("sms",), ("email", "sms")])),
        "topics": draw(st.sampled_from([None, ("offers",), ("letters",)])),
    }
    kind = draw(st.sampled_from(["window", "day", "gap"]))
    if kind == "gap":
        return Cap(min_gap=timedelta(hours=draw(st.integers(1, 8))), **scope)
    if kind == "day":
        return Cap(max=draw(st.integers(1, 3)), calendar="day", **scope)
    return Cap(max=draw(st.integers(1, 3)), window=timedelta(hours=draw(st.integers(1, 40))), **scope)


@st.composite
def any_plans(draw: st.DrawFn) -> dict[str, Plan]:
    plans = {}
    for name in "abcdef"[: draw(st.integers(1, 6))]:
        due = NOON + draw(hours)
        plans[name] = Plan(
            name,
            draw(st.sampled_from([10, 50, 50, 90])),
            due,
            due + timedelta(hours=draw(st.integers(1, 48))),
            draw(st.sampled_from(["email", "sms"])),
            draw(st.sampled_from(["offers", "letters"])),
            draw(st.sampled_from(["skip", "defer"])),
        )
    return plans


@st.composite
def any_world(draw: st.DrawFn) -> World:
    plans = draw(any_plans())
    caps = tuple(draw(st.lists(any_cap(), min_size=1, max_size=3)))
    silences = draw(st.sampled_from([(), NIGHT]))
    gone = draw(st.frozensets(st.sampled_from(sorted(plans)), max_size=2))
    return World(caps, plans, draw(st.permutations(sorted(plans))), silences, gone)


@given(world=any_world())
def test_nobody_waits_for_ever_and_no_cap_is_ever_exceeded(world: World) -> None:
    world.play()

    assert set(world.sent) | set(world.skipped) == set(world.plans)
    assert not set(world.sent) & set(world.skipped)
    world.check_caps()
    assert all(world.plans[name].first_due_at <= at < world.plans[name].expires_at for name, at in world.sent.items())


@given(world=any_world(), data=st.data())
def test_the_same_messages_have_the_same_fate_whoever_is_asked_first(world: World, data: st.DataObject) -> None:
    """Where each sees all that go before it: nobody expires before the last one is due."""
    plans = {name: replace(p, expires_at=p.expires_at + timedelta(hours=30)) for name, p in world.plans.items()}
    one, other = (
        World(world.caps, plans, data.draw(st.permutations(world.order)), world.silences, world.gone) for _ in range(2)
    )

    assert (one.play().sent, one.skipped) == (other.play().sent, other.skipped)


@given(plans=any_plans(), most=st.integers(1, 4), gone=st.frozensets(st.sampled_from("abcdef"), max_size=2))
def test_a_cap_over_all_goes_to_the_most_important_who_can_have_it(
    plans: dict[str, Plan], most: int, gone: frozenset[str]
) -> None:
    """One window that nobody sees the end of, and nobody expires before all are due: the best `most` have it."""
    end = NOON + timedelta(hours=40)
    cap = Cap(name="c", max=most, window=timedelta(days=30))
    plans = {name: replace(plan, expires_at=end + timedelta(hours=n)) for n, (name, plan) in enumerate(plans.items())}
    world = World((cap,), plans, sorted(plans), gone=gone).play()

    best = sorted((plan for name, plan in plans.items() if name not in gone), key=lambda plan: plan.rank)
    assert set(world.sent) == {plan.name for plan in best[:most]}


@given(plans=any_plans(), caps=st.lists(any_cap(), min_size=1, max_size=3))
def test_those_due_at_once_leave_as_if_taken_by_rank(plans: dict[str, Plan], caps: list[Cap]) -> None:
    """All due at noon, windows longer than any wait: a greedy hand that takes them by rank sends the same ones."""
    longest = timedelta(hours=30)
    caps = [long_window(cap) for cap in caps]
    plans = {
        name: replace(plan, first_due_at=NOON, expires_at=NOON + longest, on_cap="skip") for name, plan in plans.items()
    }
    chosen = by_hand(plans, caps)

    for order in list(permutations(sorted(plans)))[:24]:
        assert set(World(tuple(caps), plans, list(order)).play().sent) == chosen


def long_window(cap: Cap) -> Cap:
    """Return a cap of the same scope whose end nobody sees."""
    return Cap(name=cap.name, max=cap.max or 1, window=timedelta(days=9), channels=cap.channels, topics=cap.topics)


def by_hand(plans: dict[str, Plan], caps: list[Cap]) -> set[str]:
    """Return who goes if each, best first, goes unless one of the caps over it is used up."""
    chosen: list[Plan] = []
    for plan in sorted(plans.values(), key=lambda plan: plan.rank):
        over = [cap for cap in caps if covers(cap, plan)]
        if all(sum(covers(cap, other) for other in chosen) < (cap.max or 1) for cap in over):
            chosen.append(plan)
    return {plan.name for plan in chosen}


def covers(cap: Cap, plan: Plan) -> bool:
    return plan.channel in cap.channels and (cap.topics is None or plan.topic in cap.topics)


def two(**changes: object) -> dict[str, Plan]:
    lesser = Plan("lesser", 10, NOON, NOON + timedelta(hours=24))
    return {"lesser": lesser, "better": replace(lesser, name="better", priority=90, **changes)}


DAILY = Cap(name="daily", max=1, window=timedelta(hours=24))


def test_the_lesser_waits_for_one_that_becomes_due_in_time() -> None:
    world = World((DAILY,), two(first_due_at=NOON + timedelta(hours=9)), ["lesser", "better"]).play()

    assert world.sent == {"better": NOON + timedelta(hours=9)}
    assert world.skipped == {"lesser": Reason.CAPPED}


def test_the_lesser_has_the_slot_at_once_if_the_better_is_skipped_though_it_would_have_outlived_it() -> None:
    plans = two(first_due_at=NOON + timedelta(hours=9), expires_at=NOON + timedelta(hours=33))
    world = World((DAILY,), plans, ["lesser", "better"], gone=frozenset({"better"})).play()

    assert world.sent == {"lesser": NOON + timedelta(hours=9)}


def test_whoever_was_outranked_to_the_end_expires_and_is_told_by_what() -> None:
    plans = two(first_due_at=NOON + timedelta(hours=23, minutes=58), expires_at=NOON + timedelta(hours=40))
    world = World((DAILY,), plans, ["lesser", "better"])
    world.due = {name: plan.first_due_at for name, plan in plans.items()}
    last_call = plans["lesser"].expires_at - timedelta(minutes=5)

    assert decide(world.facts("lesser", NOON), NOON) == Defer(last_call, Reason.OUTRANKED)
    verdict = decide(world.facts("lesser", last_call), last_call)
    assert verdict == Skip(Reason.EXPIRED)
    assert isinstance(verdict, Skip)
    assert verdict.facts["blocked_by"] == Reason.OUTRANKED
    assert verdict.facts["campaign"] == "better"
