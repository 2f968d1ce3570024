"""Who is left out of a run though nothing forbids it: held out, second at an address, no longer meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from at_work import AtWork, campaign, noon_ahead
from people import add_person
from sqlalchemy import Engine

from dispatcher.events import Event, record_events
from dispatcher.facts_page import share_of
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.sending import send_batch
from dispatcher.simulate import simulate

NOON = noon_ahead()
TEXTS = {
    "campaigns/text.yaml": "name: text\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: short\n",
    "templates/sms/short/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/short/body.txt": "Hello {{ contact.first_name }} {{ unsubscribe_url }}\n",
}


def shop_with(database: Engine, key_ring: KeyRing, home: Path, *files: dict[str, str]) -> AtWork:
    return AtWork(database, key_ring, home, {name: text for some in files for name, text in some.items()}, starts=NOON)


# --- held out


def test_a_holdout_is_a_share_of_the_people_and_another_one_for_each_campaign() -> None:
    people = [f"customer-{number}" for number in range(40_000)]
    out = {name: {p for p in people if share_of("holdout", name, p) < 0.05} for name in ("spring", "summer")}

    for held in out.values():
        assert abs(len(held) - 2_000) < 4 * (40_000 * 0.05 * 0.95) ** 0.5
    assert abs(len(out["spring"] & out["summer"]) - 100) < 4 * 100**0.5


def test_the_same_people_are_held_out_of_every_run_and_before_any_cap(
    database: Engine, key_ring: KeyRing, tmp_path: Path
) -> None:
    shop = shop_with(database, key_ring, tmp_path, campaign("measured", "holdout: 30%\n"), campaign("plain"))
    people = [f"p{number:02}" for number in range(40)]
    with database.begin() as connection:
        for name in people:
            add_person(connection, key_ring, name)
    held = {name for name in people if share_of("holdout", "measured", name) < 0.3}
    assert 0 < len(held) < len(people)

    with database.connect() as connection:
        told = simulate(connection, "measured")
    first = shop.plan(shop.start("measured"))
    shop.send()
    again = shop.plan(shop.start("measured"))
    plain = shop.plan(shop.start("plain"))
    shop.send()

    assert told.as_json()["skip"] == {"HOLDOUT": len(held)}
    for run_id, otherwise in ((first, "sent"), (again, "CAPPED")):
        became = {name: row.became for name, row in shop.rows(run_id).items()}
        assert became == {name: "HOLDOUT" if name in held else otherwise for name in people}
    # nothing of theirs was counted
    became = {name: row.became for name, row in shop.rows(plain).items()}
    assert became == {name: "sent" if name in held else "CAPPED" for name in people}


# --- one address


@pytest.fixture
def family(database: Engine, key_ring: KeyRing, tmp_path: Path) -> AtWork:
    """Three people with one phone, in the order of their ids."""
    shop = shop_with(database, key_ring, tmp_path, TEXTS)
    with database.begin() as connection:
        for name in ("mother", "father", "child"):
            add_person(connection, key_ring, name, phone="+447700900001", granted=(("sms", "offers"),))
    return shop


def test_the_lowest_contact_has_a_shared_phone_and_the_others_are_told_who(family: AtWork) -> None:
    run_id = family.plan(family.start("text"))
    family.send()
    rows = family.rows(run_id)

    assert {name: row.became for name, row in rows.items()} == {
        "mother": "sent", "father": "DUPLICATE_ADDRESS", "child": "DUPLICATE_ADDRESS"
    }  # fmt: skip
    assert [rows[name].facts for name in ("father", "child")] == [{"goes_to": "mother"}] * 2


def test_whoever_cannot_have_it_when_planned_leaves_it_to_the_next(family: AtWork) -> None:
    family.do("UPDATE contact SET paused_until = '2100-01-01Z' WHERE external_id = 'mother'")
    run_id = family.plan(family.start("text"))
    family.send()
    rows = family.rows(run_id)

    assert {name: row.became for name, row in rows.items()} == {
        "mother": "PAUSED", "father": "sent", "child": "DUPLICATE_ADDRESS"
    }  # fmt: skip
    assert rows["child"].facts == {"goes_to": "father"}


def test_who_is_second_stays_so_if_the_first_is_skipped_later(family: AtWork) -> None:
    run_id = family.plan(family.start("text"))
    family.do("UPDATE contact SET paused_until = '2100-01-01Z' WHERE external_id = 'mother'")
    family.send()

    assert {name: row.became for name, row in family.rows(run_id).items()} == {
        "mother": "PAUSED", "father": "DUPLICATE_ADDRESS", "child": "DUPLICATE_ADDRESS"
    }  # fmt: skip


@pytest.mark.parametrize("first_leaves_before", [False, True])
def test_of_several_that_were_planned_apart_one_has_it(family: AtWork, first_leaves_before: bool) -> None:
    """Another planner took the later page first, so each page knows nothing of the other."""
    run_id = family.start("text")
    family.pages_of(run_id, 1)
    family.do("UPDATE audience_page SET page = 2 - page + 10")
    assert plan_page(family.database, run_id)  # the child
    if first_leaves_before:
        family.send()
    family.plan(run_id)
    for batch_id in reversed(family.release()):
        send_batch(family.hands, batch_id)
    family.send()
    became = {name: row.became for name, row in family.rows(run_id).items()}

    goes_to = "child" if first_leaves_before else "mother"
    assert became == {name: "sent" if name == goes_to else "DUPLICATE_ADDRESS" for name in became}
    assert {name: row.facts for name, row in family.rows(run_id).items() if name != goes_to} == {
        name: {"goes_to": goes_to} for name in became if name != goes_to
    }


# --- no longer meant

NOT_YET = """\
name: not-yet
match:
  not: {event: order.placed, within: 7d}
"""


@pytest.mark.parametrize("recheck", [True, False])
def test_whoever_bought_meanwhile_is_not_asked_to_buy_if_the_campaign_looks_again(
    database: Engine, key_ring: KeyRing, tmp_path: Path, recheck: bool
) -> None:
    rules = campaign("remind", f"recheck_segment: {str(recheck).lower()}\n")
    rules["campaigns/remind.yaml"] = rules["campaigns/remind.yaml"].replace("everybody", "not-yet")
    shop = shop_with(database, key_ring, tmp_path, rules, {"segments/not-yet.yaml": NOT_YET})
    with database.begin() as connection:
        for name in ("buyer", "other"):
            add_person(connection, key_ring, name)
    run_id = shop.plan(shop.start("remind"))
    with database.begin() as connection:
        record_events(connection, key_ring, [Event("o-1", "buyer", "order.placed", shop.now())])
    shop.send()

    became = {name: row.became for name, row in shop.rows(run_id).items()}
    assert became == {"buyer": "NOT_IN_SEGMENT" if recheck else "sent", "other": "sent"}
