"""Why somebody would get it or would not, now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asked import NOON, _sent, gate
from people import add_person, say
from sqlalchemy import Engine, text

from dispatcher import runs, suppression
from dispatcher.contact_windows import load_rows
from dispatcher.errors import NotFound
from dispatcher.gates import GATES
from dispatcher.identity import merge
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page


def test_who_may_get_it_is_told_so_with_every_gate_and_the_evidence(ask: Any) -> None:
    found = ask("agreed")

    assert (found["verdict"], found["reason"], found["until"]) == ("send", None, None)
    assert found["sentence"] == "agreed would get hello now, judged at 7 May 2030 at 12:00 UTC: every gate agrees."
    assert [one["gate"] for one in found["gates"]] == list(GATES)
    evidence = gate(found, "NO_CONSENT")["facts"]["evidence"]
    assert (evidence["action"], evidence["source"], evidence["occurred_at"].year) == ("granted", "test", 2020)
    assert not {"sealed", "address_hash", "hash"} & evidence.keys(), "what is personal stays sealed"
    [place] = gate(found, "PLACE_UNKNOWN")["facts"]["places"]
    assert (place["zone"], place["known_from"]) == ("Europe/London", "stated zone")
    assert place["local_time"] == "2030-05-07T13:00+01:00"
    assert found["ledger_sentence"] == "hello has never been run."
    assert (found["ledger"], found["run"]) == (None, None)


def test_a_withdrawal_is_told_with_its_date_and_source(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    with shop.begin() as connection:
        left = add_person(connection, key_ring, "left")
        say(connection, key_ring, left, [("email", "offers", "withdrawn")])
    found = ask("left")

    assert found["sentence"].endswith("they withdrew offers on 7 May 2030 at 12:00 UTC (NO_CONSENT).")
    assert found["eligible"]["never"] == "NO_CONSENT"
    assert found["eligible"]["sentence"].startswith("never for this run, because they withdrew offers")


def test_a_suppression_is_told_with_its_source_and_date(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    with shop.begin() as connection:
        add_person(connection, key_ring, "bounced")
        address_id = connection.scalar(
            text("SELECT email_address_id FROM contact WHERE external_id = 'bounced'")
        )  # fmt: skip
        suppression.add(connection, address_id, "hard_bounce", source="provider:sandbox")
    found = ask("bounced")

    assert "an earlier message to the address bounced for good (SUPPRESSED)" in found["sentence"]
    [one] = gate(found, "SUPPRESSED")["facts"]["suppressions"]
    assert (one["reason"], one["scope"], one["source"]) == ("hard_bounce", "all", "provider:sandbox")
    assert one["created_at"] >= NOON


def test_a_full_cap_names_the_messages_it_counted_and_when_a_place_frees(
    shop: Engine, key_ring: KeyRing, ask: Any
) -> None:
    sent = _sent(shop, "again", NOON - timedelta(hours=3))
    found = ask("agreed")

    assert (found["verdict"], found["reason"]) == ("skip", "CAPPED")
    assert "a place frees on 8 May 2030 at 09:00 UTC (CAPPED)" in found["sentence"]
    [cap] = gate(found, "CAPPED")["facts"]["caps"]
    assert (cap["cap"], cap["counted"], cap["free"]) == ("daily", 1, 0)
    assert cap["frees_at"] == NOON + timedelta(hours=21)
    assert [(one["message"], one["campaign"], one["authorised_at"]) for one in cap["messages"]] == [
        (sent, "again", NOON - timedelta(hours=3))
    ]


def test_a_text_at_night_says_where_it_is_night_and_when_they_become_eligible(
    shop: Engine, key_ring: KeyRing, ask: Any
) -> None:
    with shop.begin() as connection:
        add_person(connection, key_ring, "yuki", zone="Asia/Tokyo", country="JP", phone="+819012345678",
                   granted=(("sms", "offers"),))  # fmt: skip
    found = ask("yuki", "texts")

    morning = datetime(2030, 5, 8, 0, tzinfo=UTC)
    assert (found["verdict"], found["reason"]) == ("defer", "QUIET_HOURS")
    assert morning <= found["until"] < morning + timedelta(minutes=30)
    assert found["eligible"]["at"] == found["until"]
    assert "in Asia/Tokyo (the shop's own, contact window " in found["sentence"]
    assert ", until 8 May 2030 at 00:00 UTC (QUIET_HOURS); eligible on 8 May 2030 at 00:" in found["sentence"]
    facts = gate(found, "QUIET_HOURS")["facts"]
    silences = {one["source"]: one for one in facts["silences"]}
    assert (silences["shop"]["hours"], silences["shop"]["in_effect"]) == (["20:00-09:00 daily"], True)
    assert {law["window"] for law in facts["laws"]} == silences.keys() - {"shop"}
    for law in facts["laws"]:
        assert law["basis"] == load_rows()[law["window"]].basis
        assert law["pages"] == load_rows()[law["window"]].sources


def test_a_cap_of_a_place_names_its_statute(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    with shop.begin() as connection:
        add_person(connection, key_ring, "miami", zone="America/New_York", country="US", subdivision="FL",
                   phone="+13055550100", granted=(("sms", "offers"),))  # fmt: skip
    facts = gate(ask("miami", "texts"), "CAPPED")["facts"]

    assert [cap["cap"] for cap in facts["caps"]] == ["daily", "law-us-fl"]
    assert [(law["window"], law["basis"]) for law in facts["laws"]] == [("US-FL", "Fla. Stat. 501.616(6); 501.059")]


def test_who_is_outside_the_segment_learns_which_condition_failed_and_what_was_found(
    shop: Engine, key_ring: KeyRing, ask: Any
) -> None:
    with shop.begin() as connection:
        add_person(connection, key_ring, "german", country="DE")
    found = ask("german")

    assert found["reason"] == "NOT_IN_SEGMENT"
    assert found["not_in_segment_because"] == ["not attribute: country, in: [DE] (found value DE)"]
    assert "since this does not hold: not attribute: country, in: [DE] (found value DE)" in found["sentence"]
    assert found["segment"]["holds"] is False


def test_a_shared_phone_shows_who_gets_the_text_instead(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    with shop.begin() as connection:
        for name in ("first", "second"):
            add_person(connection, key_ring, name, phone="+447700900123", granted=(("sms", "offers"),))
    found = ask("second", "texts")

    assert ask("first", "texts")["verdict"] == "send"
    assert (found["verdict"], found["reason"]) == ("skip", "DUPLICATE_ADDRESS")
    assert "somebody else in the run has the same address (first)" in found["sentence"]


def test_whoever_shares_a_phone_with_somebody_who_may_not_get_it_gets_it(
    shop: Engine, key_ring: KeyRing, ask: Any
) -> None:
    with shop.begin() as connection:
        add_person(connection, key_ring, "first", phone="+447700900123", granted=())
        add_person(connection, key_ring, "outside", phone="+447700900123", country="DE", granted=(("sms", "offers"),))
        add_person(connection, key_ring, "third", phone="+447700900123", granted=(("sms", "offers"),))

    assert ask("third", "texts")["verdict"] == "send"


def test_a_contact_without_an_address_is_told_so(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    with shop.begin() as connection:
        add_person(connection, key_ring, "mailless", email=None)

    assert ask("mailless")["sentence"].endswith("we have no e-mail address of theirs (NO_ADDRESS).")


def test_a_merged_contact_is_followed_and_it_is_said(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    with shop.begin() as connection:
        kept, gone = (add_person(connection, key_ring, name) for name in ("kept", "gone"))
        merge(connection, key_ring, kept, gone)
    found = ask("gone")

    assert (found["contact"], found["merged_from"], found["verdict"]) == ("kept", "gone", "send")
    assert ask("kept")["merged_from"] is None


def test_a_contact_merged_before_its_page_was_planned_is_a_duplicate_and_not_without_address(
    shop: Engine, key_ring: KeyRing, ask: Any
) -> None:
    with shop.begin() as connection:
        kept, gone = (add_person(connection, key_ring, name) for name in ("kept", "gone"))
        run_id = runs.start(connection, "hello", started_by="test")
        merge(connection, key_ring, kept, gone)
    while plan_page(shop, run_id):
        pass

    with shop.connect() as connection:
        rows = connection.execute(
            text("SELECT contact_id, status, reason FROM message WHERE contact_id = ANY(:ids)"), {"ids": [kept, gone]}
        )
        assert {tuple(row) for row in rows} == {(kept, "pending", None), (gone, "skipped", "DUPLICATE_ADDRESS")}
    assert ask("gone", run=run_id)["ledger"]["status"] == "pending", "of two rows the one of the survivor is theirs"


def test_an_erased_person_is_told_of_without_anything_of_theirs(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    with shop.begin() as connection:
        add_person(connection, key_ring, "erased")
        connection.execute(
            text("UPDATE contact SET erased_at = :now, data_key = NULL, sealed = NULL WHERE external_id = 'erased'"),
            {"now": NOON},
        )
    found = ask("erased")

    assert found["verdict"] == "skip"
    assert found["sentence"].endswith("they were erased on 7 May 2030 at 12:00 UTC.")


def test_an_unknown_contact_is_answered_with_a_similar_one_for_whoever_may_see_them(ask: Any) -> None:
    with pytest.raises(NotFound, match=r"^there is no contact 'agred'; did you mean agreed\?$"):
        ask("agred", suggest=True)
    with pytest.raises(NotFound, match="give an external id or an e-mail address"):
        ask("agred")


def test_no_address_is_ever_suggested(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    with shop.begin() as connection:
        add_person(connection, key_ring, "ana@people.example", email="other@people.example")

    with pytest.raises(NotFound) as refused:
        ask("ana.people.example", suggest=True)
    assert "@" not in str(refused.value)


def test_a_stop_shows_who_can_lift_it(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    with shop.begin() as connection:
        runs.stop_all(connection, by="test")
    found = ask("agreed")

    assert (found["verdict"], found["reason"]) == ("defer", "OPERATOR")
    assert (found["eligible"]["at"], found["eligible"]["waits_for"]) == (None, "OPERATOR")
    assert "dispatcher go-on" in found["sentence"]
