"""Places in the database: what a phone says is kept, goes with its number, and binds every kind of message."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from people import add_person
from small_workspace import FILES, write_workspace
from sqlalchemy import Connection, Engine, event, text

from dispatcher import identity, runs
from dispatcher.apply import apply
from dispatcher.contact_windows import coverage
from dispatcher.contacts import Particulars, save_contact
from dispatcher.explain import explain
from dispatcher.facts_page import order_of, read_facts
from dispatcher.gates import Defer, Reason, Send, decide
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.shop import load_shop
from dispatcher.simulate import simulate
from dispatcher.workspace import read_workspace

TEXT = "name: text\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: hello\n"
FOLDER: dict[str, str | None] = {
    "campaigns/text.yaml": TEXT,
    "templates/sms/hello/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/hello/body.txt": "Hello {{ contact.first_name }} {{ unsubscribe_url }}\n",
    "dispatcher.toml": FILES["dispatcher.toml"].replace("max = 1", "max = 50"),  # the law is what binds here
}
TEXTS = (("sms", "offers"),)
MONDAY = datetime(2026, 11, 23, 18, tzinfo=UTC)  # afternoon in all of the United States but Hawaii


def region(connection: Connection, contact_id: int | None) -> str | None:
    return connection.scalar(text("SELECT phone_region FROM contact WHERE id = :id"), {"id": contact_id})


@pytest.fixture
def shop(database: Engine, tmp_path: Path) -> Engine:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path, FOLDER)), by="test")
    return database


def verdict(connection: Connection, contact_id: int, now: datetime, campaign: str = "text") -> Any:
    run, _ = runs.draft(connection, campaign, occurrence_key="x", nominal_at=now, started_by="test")
    order = order_of(run, load_shop(connection), stopped=False, urgent=False)
    [(_, facts)] = read_facts(connection, order, [contact_id], now=now, expires_at=now + timedelta(days=6))
    return decide(facts, now)


def text_sent(connection: Connection, contact_id: int, topic: str, at: datetime) -> None:
    run_id = runs.start(connection, "text", started_by="test", again=True)
    connection.execute(
        text("""INSERT INTO message (id, run_id, contact_id, channel, topic, class, status,
                                     due_at, first_due_at, expires_at, authorised_at)
                VALUES (gen_random_uuid(), :run, :who, 'sms', :topic, 'marketing', 'sent', :at, :at, :at, :at)"""),
        {"run": run_id, "who": contact_id, "topic": topic, "at": at},
    )


# --- the coarse column beside the number


def test_what_a_number_says_of_a_place_changes_with_the_number(connection: Connection, key_ring: KeyRing) -> None:
    saved = save_contact(connection, key_ring, Particulars("anna", phone="+12125550100"))
    assert region(connection, saved.contact_id) == "1212"

    save_contact(connection, key_ring, Particulars("anna", phone="+33612345678"))
    assert region(connection, saved.contact_id) == "FR"

    save_contact(connection, key_ring, Particulars("anna", phone="+8821612345678"))
    assert region(connection, saved.contact_id) is None


def test_a_merge_takes_the_region_over_with_the_number_and_not_without(
    connection: Connection, key_ring: KeyRing
) -> None:
    survivor = save_contact(connection, key_ring, Particulars("a", email="a@x.example")).contact_id
    loser = save_contact(connection, key_ring, Particulars("b", phone="+12125550100")).contact_id
    satellite = save_contact(connection, key_ring, Particulars("c", phone="+8821612345678")).contact_id
    other = save_contact(connection, key_ring, Particulars("d", phone="+33612345678")).contact_id
    assert survivor
    assert loser
    assert satellite
    assert other

    identity.merge(connection, key_ring, survivor, loser)
    identity.merge(connection, key_ring, satellite, other)

    assert region(connection, survivor) == "1212"
    assert region(connection, loser) is None
    assert region(connection, satellite) is None  # it kept its own number


# --- what binds a message


def test_a_page_of_facts_is_one_query_and_knows_every_place(shop: Engine, key_ring: KeyRing) -> None:
    statements: list[str] = []
    with shop.begin() as connection:
        who = add_person(
            connection, key_ring, "who", zone=None, country="US", subdivision="TX", phone="+18505550100", granted=TEXTS
        )
        run, _ = runs.draft(connection, "text", occurrence_key="x", nominal_at=MONDAY, started_by="test")
        order = order_of(run, load_shop(connection), stopped=False, urgent=False)
        event.listen(shop, "before_cursor_execute", lambda *given: statements.append(given[2]))
        [(_, facts)] = read_facts(connection, order, [who], now=MONDAY, expires_at=MONDAY + timedelta(days=1))

    assert len(statements) == 1
    assert facts.places.zones == ("America/Chicago", "America/Denver", "America/New_York")
    assert {local.source for local in facts.silences} == {"US", "US-TX", "US-FL", "shop"}
    assert [cap.name for cap in facts.law_caps] == ["law-us-fl"]


def test_a_phone_binds_email_too(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        who = add_person(connection, key_ring, "who", zone=None, country=None, phone="+27821234567")

        at_night = verdict(connection, who, datetime(2026, 11, 23, 20, tzinfo=UTC), "hello")

    assert isinstance(at_night, Defer)
    assert at_night.reason is Reason.QUIET_HOURS  # South Africa is the one with hours for e-mail
    assert at_night.facts["windows"] == ("ZA",)
    assert at_night.until >= datetime(2026, 11, 24, 6, tzinfo=UTC)


def test_no_hour_that_suits_everybody_is_put_off_and_said(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        who = add_person(connection, key_ring, "who", zone="Asia/Tokyo", phone="+14015550100", granted=TEXTS)
        found = verdict(connection, who, MONDAY)
        told = simulate(connection, "text", as_of=MONDAY)
        shown = explain(connection, key_ring, "who", "text", as_of=MONDAY)

    assert found == Defer(MONDAY + timedelta(hours=1), Reason.PLACE_UNKNOWN)
    assert found.facts["because"] == "no hour within nine days suits every place they may be in"
    assert told.as_json()["defer"] == {"PLACE_UNKNOWN": 1}
    gates = {gate["gate"]: gate["facts"] for gate in shown["gates"]}
    assert {place["known_from"] for place in gates[Reason.PLACE_UNKNOWN]["places"]} == {"stated zone", "phone"}
    assert {silence["source"] for silence in gates[Reason.QUIET_HOURS]["silences"]} == {
        "GLOBAL",
        "GB",
        "US",
        "US-RI",
        "shop",
    }


def test_holidays_that_cannot_be_known_hold_the_message(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    own = '[contact_windows.FALKLANDS]\ncountry = "GS"\nwindows = {daily = "09:00-18:00"}\nholidays = "closed"\n'
    folder = write_workspace(tmp_path, FOLDER | {"dispatcher.toml": str(FOLDER["dispatcher.toml"]) + own})
    with database.begin() as connection:
        workspace = read_workspace(folder)
        apply(connection, workspace, by="test")
        connection.execute(
            text("UPDATE engine SET shop = jsonb_set(shop, '{contact_windows,FALKLANDS,calendars}', '[\"GS-X\"]')")
        )
        who = add_person(connection, key_ring, "who", zone=None, country="GS", phone="+33612345678", granted=TEXTS)
        found = verdict(connection, who, MONDAY)

    assert isinstance(found, Defer)
    assert found.reason is Reason.PLACE_UNKNOWN
    assert found.facts["because"] == "there is no calendar of holidays for GS-X"


def test_the_law_lets_three_texts_on_a_topic_through_in_a_day(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        who = add_person(connection, key_ring, "who", zone=None, country="US", phone="+13055550100", granted=TEXTS)
        for number in range(3):
            assert isinstance(verdict(connection, who, MONDAY), Send), number
            text_sent(connection, who, "offers", MONDAY - timedelta(hours=23, minutes=number))
        capped = verdict(connection, who, MONDAY)
        connection.execute(text("UPDATE message SET topic = 'letters' WHERE authorised_at < :at"), {"at": MONDAY})
        other_subject = verdict(connection, who, MONDAY)

    assert capped.reason is Reason.CAPPED
    assert capped.facts["cap"] == "law-us-fl"
    assert isinstance(other_subject, Send)


def test_the_law_of_brazil_counts_thirty_days(shop: Engine, key_ring: KeyRing) -> None:
    noon = datetime(2026, 11, 23, 16, tzinfo=UTC)
    with shop.begin() as connection:
        who = add_person(
            connection,
            key_ring,
            "who",
            zone=None,
            country="BR",
            subdivision="SP",
            phone="+5511912345678",
            granted=TEXTS,
        )
        for days in range(2, 17):
            text_sent(connection, who, "letters", noon - timedelta(days=days))
        capped = verdict(connection, who, noon)

    assert capped.reason is Reason.CAPPED
    assert capped.facts["cap"] == "law-br-2"


def test_a_plan_says_which_windows_and_zone_rules_put_a_message_off(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        connection.execute(
            text("UPDATE engine SET clock_offset = :at - clock_timestamp()"),
            {"at": datetime(2026, 11, 23, 3, tzinfo=UTC)},
        )
        add_person(connection, key_ring, "who", zone=None, country="GB", phone="+33612345678", granted=TEXTS)
        run_id = runs.start(connection, "text", started_by="test")
    while plan_page(shop, run_id):
        pass
    with shop.connect() as connection:
        row = connection.execute(text("SELECT deferred_reason, facts FROM message")).one()

    assert row.deferred_reason == "QUIET_HOURS"
    assert set(row.facts["windows"]) == {"shop", "GB", "FR", "FR-STRICT"}
    assert row.facts["tzdata"]
    assert row.facts["known_from"] == ["phone"]


# --- doctor


def test_the_survey_counts_rows_and_names_the_gaps(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        connection.execute(text("UPDATE engine SET shop = jsonb_set(shop, '{shop,countries}', '[]')"))
        add_person(connection, key_ring, "london")
        add_person(connection, key_ring, "warsaw", zone=None, country="PL")
        add_person(connection, key_ring, "nowhere", zone=None, country=None)
        add_person(connection, key_ring, "torn", zone="Asia/Tokyo", country="JP", phone="+14015550100")
        found = coverage.survey(connection, load_shop(connection), MONDAY)

    assert found.contacts == 4
    assert found.nowhere == 1
    assert found.by_row == {"GB": 1, "GLOBAL": 2, "US": 1, "US-RI": 1}
    assert found.default_only == {"PL": 1}
    assert found.never == 1
    assert found.known_from == {"stated zone": 2, "country": 1, "phone": 1}
