"""Why she did not get it: one plain sentence for every state a contact, a campaign and a run can be in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from crowd import plan, set_clock
from ledger import Ledger, make_ledger
from people import add_person, say
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, text

from dispatcher import db, runs, suppression
from dispatcher.apply import apply
from dispatcher.contact_windows import load_rows
from dispatcher.errors import NotFound, Refused
from dispatcher.explain import explain
from dispatcher.gates import GATES
from dispatcher.identity import merge
from dispatcher.keys import KeyRing
from dispatcher.places import TZDATA_VERSION
from dispatcher.plan import plan_page
from dispatcher.workspace import read_workspace

NOON = datetime(2030, 5, 7, 12, tzinfo=UTC)
FILES_HERE = {
    "segments/everybody.yaml": "name: everybody\nmatch: {not: {attribute: country, in: [DE]}}\n",
    "campaigns/texts.yaml": "name: texts\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: short\n",
    "campaigns/again.yaml": FILES["campaigns/hello.yaml"].replace("hello", "again"),
    "templates/sms/short/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/short/body.txt": "{{ shop.name }} {{ unsubscribe_url }}\n",
}


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Engine:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", FILES_HERE)), by="test")
        set_clock(connection, NOON)
        add_person(connection, key_ring, "agreed")
    return database


@pytest.fixture
def ask(shop: Engine, key_ring: KeyRing) -> Any:
    """Explain one contact and campaign, in a transaction that cannot write."""

    def ask(contact: str, campaign: str = "hello", **more: Any) -> dict[str, Any]:
        with db.reading(shop) as connection:
            return explain(connection, key_ring, contact, campaign, **more)

    return ask


def gate(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["gates"] if one["gate"] == name)


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


def _sent(shop: Engine, campaign: str, at: datetime) -> UUID:
    """Return the message of a run of `campaign` that was sent to `agreed` at that instant."""
    run_id = plan(shop, campaign)
    with shop.begin() as connection:
        for status in ("sending", "sent"):
            connection.execute(
                text("""UPDATE message SET status = :status, batch_id = NULL, authorised_at = :at, handed_over_at = :at,
                               settled_at = :at, provider = 'sandbox' WHERE run_id = :run"""),
                {"status": status, "at": at, "run": run_id},
            )
        return UUID(str(connection.scalar(text("SELECT id FROM message WHERE run_id = :run"), {"run": run_id})))


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


# --- the past


def test_a_past_run_is_told_from_the_ledger_and_today_stands_beside(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    with shop.begin() as connection:
        add_person(connection, key_ring, "late", granted=())
    run_id = plan(shop, "hello")
    with shop.begin() as connection:
        contact_id = connection.scalar(text("SELECT id FROM contact WHERE external_id = 'late'"))
        say(connection, key_ring, contact_id, [("email", "offers", "granted")])
    found = ask("late", run=run_id)

    assert (found["verdict"], found["reason"]) == ("skip", "NO_CONSENT")
    assert found["sentence"].startswith(
        "late did not get hello in the run of 7 May 2030 at 12:00 UTC: there is no record"
    )
    assert "(NO_CONSENT, decided on 7 May 2030 at 12:00 UTC)." in found["sentence"]
    verdicts = {one["gate"]: one["verdict"] for one in found["gates"]}
    assert (verdicts["SUPPRESSED"], verdicts["NO_CONSENT"], verdicts["CAPPED"]) == ("send", "skip", "not asked")
    assert gate(found, "NO_CONSENT")["facts"]["because"] == "never granted"
    assert found["today"]["verdict"] == "send", "today's facts decide of today only"
    assert found["ledger"]["tzdata"] == TZDATA_VERSION
    assert found["run"]["run"] == run_id


def test_what_was_sent_shows_when_it_left_and_how_it_ended(shop: Engine, ask: Any) -> None:
    _sent(shop, "hello", NOON)
    found = ask("agreed", run=ask("agreed")["run"]["run"])

    assert found["sentence"] == "agreed was sent hello on 7 May 2030 at 12:00 UTC, and sandbox accepted it."
    assert (found["verdict"], found["reason"]) == ("send", None)
    assert found["ledger"]["handed_over_at"] == found["ledger"]["settled_at"] == NOON
    assert {one["verdict"] for one in found["gates"]} == {"send"}


def test_a_paused_run_says_what_lets_it_go_on(shop: Engine, ask: Any) -> None:
    run_id = plan(shop, "hello")
    with shop.begin() as connection:
        runs.pause(connection, run_id, by="test")

    assert "paused the run, until somebody runs dispatcher campaign resume" in ask("agreed")["ledger_sentence"]
    found = ask("agreed", run=run_id)
    assert found["sentence"] == ask("agreed")["ledger_sentence"]
    assert (found["verdict"], found["reason"], found["until"]) == ("defer", "OPERATOR", None)
    assert gate(found, "OPERATOR")["facts"] == {"run": "paused"}
    assert gate(found["today"], "OPERATOR")["facts"] == {"engine_stopped": False}, "a run of today would be a new one"


def test_a_run_that_is_not_planned_yet_has_them_in_its_audience(shop: Engine, ask: Any) -> None:
    with shop.begin() as connection:
        run_id = runs.start(connection, "hello", started_by="test")

    found = ask("agreed", run=run_id)
    assert (found["verdict"], found["reason"]) == ("defer", None)
    assert "in the audience of hello" in found["sentence"]
    with shop.begin() as connection:
        runs.pause(connection, run_id, by="test")
    found = ask("agreed", run=run_id)
    assert (found["verdict"], found["reason"]) == ("defer", "OPERATOR")
    assert found["sentence"].endswith("has not been decided on yet, and the run is paused.")


def test_a_missed_occurrence_was_sent_to_nobody(shop: Engine, ask: Any) -> None:
    with shop.begin() as connection:
        run_id = runs.fire(
            connection, "hello", occurrence_key="o", nominal_at=NOON, now=NOON, started_by="schedule", missed=True
        )
    found = ask("agreed", run=run_id)

    assert (found["verdict"], found["reason"]) == ("skip", "LATE")
    assert "its hour had passed, and it was sent to nobody" in found["sentence"]


@pytest.mark.parametrize("year", [1, 1900, 9999])
def test_an_instant_centuries_away_is_refused(ask: Any, year: int) -> None:
    with pytest.raises(Refused, match=f"in the year {year}; choose one from 1970 to 2200"):
        ask("agreed", as_of=datetime(year, 1, 1, tzinfo=UTC))


def test_who_came_after_the_audience_was_frozen_is_told_so(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    run_id = plan(shop, "hello")
    with shop.begin() as connection:
        add_person(connection, key_ring, "german", country="DE")
    found = ask("german", run=run_id)

    assert (found["verdict"], found["reason"], found["ledger"]) == ("skip", "NOT_IN_SEGMENT", None)
    assert "segment everybody did not mean them when its audience was frozen on 7 May 2030" in found["sentence"]


def test_a_cancelled_run_names_the_operator(shop: Engine, ask: Any) -> None:
    run_id = plan(shop, "hello")
    with shop.begin() as connection:
        runs.cancel(connection, run_id, by="test")
        runs.sweep(connection, NOON)

    assert "an operator cancelled it before it left (OPERATOR" in ask("agreed", run=run_id)["sentence"]


def test_a_retired_campaign_still_has_its_past(shop: Engine, ask: Any) -> None:
    run_id = plan(shop, "hello")
    with shop.begin() as connection:
        connection.execute(text("UPDATE campaign SET active = false WHERE name = 'hello'"))
    found = ask("agreed")

    assert found["today"] is None
    assert found["ledger"]["run"] == run_id
    with pytest.raises(NotFound, match="there is no campaign nothing"):
        ask("agreed", "nothing")


def test_a_run_of_another_campaign_or_of_none_is_refused(shop: Engine, ask: Any) -> None:
    run_id = plan(shop, "again")

    with pytest.raises(Refused, match="is of again, not of hello"):
        ask("agreed", run=run_id)
    with pytest.raises(NotFound, match="there is no run"):
        ask("agreed", run=uuid4())


def test_every_row_of_a_lived_in_ledger_has_its_sentence(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    lived: Ledger = make_ledger(database, key_ring, tmp_path)
    with db.reading(lived.database) as connection:
        rows = connection.execute(
            text("""SELECT r.name, r.id AS run, c.external_id, m.status, COALESCE(m.reason, m.deferred_reason) AS reason
                    FROM message m JOIN run r ON r.id = m.run_id JOIN contact c ON c.id = m.contact_id
                    WHERE r.kind = 'campaign' AND c.merged_into IS NULL""")
        ).all()
        told = [
            (row, explain(connection, key_ring, row.external_id, row.name, run=row.run)) for row in rows
        ]  # fmt: skip

    assert {row.status for row in rows} >= {"sent", "skipped", "failed", "unknown", "cancelled", "pending"}
    for row, found in told:
        assert found["ledger"]["status"] == row.status
        assert found["reason"] == row.reason
        assert found["sentence"].startswith((row.external_id, "Whether"))
        assert (row.reason or "") in found["sentence"]
        assert "None" not in found["sentence"]
