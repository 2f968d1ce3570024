"""Generated stories on both sides: however they go, both agree in the end, and nobody's later word is undone."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mirroring import GROUP_LIST, House
from standin_lists import Say

from dispatcher.errors import Refused
from dispatcher.mirrors.comparing import What

_NUMBERS = itertools.count()
_THEIRS = ("unsubscribes", GROUP_LIST, "spam_reports", "bounces", "invalid_emails")
_AT_REST = {What.AGREED, What.CANNOT_BE_NAMED, What.NOT_HARD}

step = st.one_of(
    st.tuples(st.just("suppress"), st.sampled_from(["operator", "unsubscribe", "complaint", "hard_bounce"])),
    st.tuples(st.just("lift"), st.sampled_from(["operator", "unsubscribe", "complaint", "hard_bounce"])),
    st.tuples(st.just("say"), st.sampled_from(["granted", "withdrawn"])),
    st.tuples(st.just("entry"), st.sampled_from(_THEIRS)),
    st.tuples(st.just("by hand"), st.sampled_from(_THEIRS)),
    st.tuples(st.sampled_from(["push", "compare", "away", "back"]), st.just("")),
)
stories = st.lists(st.tuples(st.integers(0, 1), step), max_size=14)


@dataclass
class Story:
    """Two people, what happens to them, and what they last said themselves."""

    house: House
    people: list[int] = field(default_factory=list)
    emails: list[str] = field(default_factory=list)

    def begin(self) -> None:
        for _ in range(2):
            name = f"p{next(_NUMBERS)}"
            self.people.append(self.house.person(name))
            self.emails.append(f"{name}@people.example")

    def go(self, who: int, what: str, which: str) -> None:
        house, email = self.house, self.emails[who]
        lists = house.lists
        acts: dict[str, Callable[[], object]] = {
            "suppress": lambda: house.suppress(email, which),  # type: ignore[arg-type]
            "lift": lambda: which in house.reasons(email) and house.lift(email, which),  # type: ignore[arg-type]
            "say": lambda: house.says(self.people[who], which),
            "entry": lambda: lists.put(which, email, ago=60),
            "by hand": lambda: lists.entries.get(which, {}).pop(email, None),
            "push": house.push,
            "compare": self.compare,
            "away": lambda: setattr(lists, "answers", lambda _method, _target: Say(503)),
            "back": self.back,
        }
        acts[what]()

    def compare(self) -> None:
        with suppress(Refused):  # it is away
            self.house.compare()

    def back(self) -> None:
        self.house.lists.answers = lambda _method, _target: None


@settings(
    max_examples=10 if os.environ.get("HYPOTHESIS_PROFILE", "test") == "test" else 60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(story=stories)
def test_both_sides_agree_in_the_end(house: House, story: list[tuple[int, tuple[str, str]]]) -> None:
    told = Story(house)
    told.begin()
    for who, (what, which) in story:
        told.go(who, what, which)

    told.back()
    house.push()
    house.compare()
    with house.database.begin() as connection:  # as if a day had gone by
        connection.exec_driver_sql("UPDATE mirrored SET put_at = put_at - interval '1 hour'")
    house.compare()
    house.push()

    assert house.waiting() == 0
    for counted in house.compare(dry_run=True).values():
        assert set(counted) <= _AT_REST
    for email in told.emails:
        reasons = house.reasons(email)
        on = {name for name in _THEIRS if email in house.lists.on(name)}
        assert ("spam_reports" in on) <= ("complaint" in reasons)
        assert ("bounces" in on) <= ("hard_bounce" in reasons)
        assert not ("unsubscribes" in on and not reasons), "order confirmations would stop for nothing"
