"""Does `verify` see what is wrong?  A real ledger holds; then one thing is broken at a time, and found by its name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger import Ledger, tampered
from people import say
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from verifying import ONE_SENT, SENT, a_shop, broken, by_name, look, look_for, written

from dispatcher.providers.sandbox import Sandbox
from dispatcher.verify import accounting, verify


@pytest.fixture(scope="module")
def ledger(
    template_database: URL, servers: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ledger]:
    with a_shop(template_database, servers[0], tmp_path_factory.mktemp("shop")) as ledger:
        yield ledger


# --- a ledger that holds


def test_a_ledger_that_the_product_wrote_holds_with_its_log_and_without(ledger: Ledger) -> None:
    with ledger.database.connect() as connection:
        with_log = verify(connection, ledger.key_ring, ledger.log)
        without = verify(connection, ledger.key_ring)

    assert with_log.ok
    assert [result.name for result in with_log.results] == [f"INV-{number}" for number in range(1, 22)]
    assert {result.status for result in with_log.results} == {"holds"}
    assert all(result.checked > 0 for result in with_log.results)
    assert without.ok
    unchecked = {result.name: result.note for result in without.results if result.status == "not checked"}
    assert unchecked == dict.fromkeys(("INV-3", "INV-14", "INV-15"), "needs a provider log")


def test_the_same_transaction_can_verify_twice_and_leaves_nothing_behind(ledger: Ledger) -> None:
    with ledger.database.connect() as connection:
        assert verify(connection, ledger.key_ring, ledger.log) == verify(connection, ledger.key_ring, ledger.log)
        connection.commit()
        assert connection.scalar(text("SELECT to_regclass('verify_line')")) is None


def test_an_empty_ledger_holds_and_says_what_it_could_not_check(connection: Connection, key_ring: Any) -> None:
    results = by_name(verify(connection, key_ring))

    assert not broken(results)
    assert results["INV-8"].status == results["INV-9"].status == "not checked"
    assert results["INV-8"].note == "no workspace has been applied"
    assert results["INV-17"].note == "no lane and no account has a rate"


def test_a_report_can_be_written_as_json_and_names_nobody(ledger: Ledger, tmp_path: Path) -> None:
    lines = ledger.lines()
    lines[0]["to"], lines[1]["to"] = lines[1]["to"], lines[0]["to"]
    lines[2]["html"], lines[3]["html"] = lines[3]["html"], lines[2]["html"] + lines[2]["to"]
    told: list[str] = []
    with ledger.database.connect() as connection:
        report = verify(connection, ledger.key_ring, written(tmp_path, lines), progress=told.append)
    shown = json.dumps(report.as_json())

    assert not report.ok
    assert {"INV-3", "INV-14", "INV-15"} <= {r["name"] for r in report.as_json()["invariants"] if r["findings_total"]}
    assert all(secret not in shown for secret in ("people.example", "+4477", "First"))
    assert [message.split(":")[0] for message in told] == [f"INV-{number}" for number in range(1, 22)]


def test_all_findings_are_counted_and_only_the_first_are_shown(ledger: Ledger) -> None:
    result = look(ledger, "UPDATE message SET reason = 'BORED' WHERE status IN ('skipped', 'cancelled')")["INV-12"]

    assert len(result.findings) == 20
    assert result.total > 20


# --- broken in the ledger

IN_HELLO = "run_id = (SELECT id FROM run WHERE name = 'hello' ORDER BY created_at LIMIT 1)"
NO_UNIQUENESS = ("DROP INDEX message_once_per_contact", "DROP INDEX message_once_per_address")


def contact(external_id: str) -> str:
    return f"(SELECT contact_id FROM contact_alias WHERE external_id = '{external_id}')"


def copied(table: str, where: str, changes: str) -> tuple[str, ...]:
    """The statements that add a copy of one row with some columns changed."""
    return (
        f"CREATE TEMPORARY TABLE copied ON COMMIT DROP AS SELECT * FROM {table} WHERE {where} LIMIT 1",
        f"UPDATE copied SET {changes}",
        f"INSERT INTO {table} SELECT * FROM copied",
    )


def new_rules(path: str, value: str) -> str:
    return f"UPDATE engine SET shop = jsonb_set(shop, '{path}', '{value}', true)"


def with_cap(cap: str) -> str:
    return new_rules("{caps}", f"[{cap}]")


GONE = "erased_at IS NOT NULL"
THEIRS = f"contact_id = (SELECT id FROM contact WHERE {GONE}) AND status = 'sent'"

BROKEN = [
    ("INV-1", "has 2 messages by email", (*NO_UNIQUENESS, *copied("message", ONE_SENT, "id = gen_random_uuid()"))),
    ("INV-1", "address", (
        *NO_UNIQUENESS,
        f"UPDATE message SET address_id = (SELECT min(id) FROM address WHERE channel = 'email') WHERE {IN_HELLO}",
    )),
    ("INV-2", "audience 15, frozen 14", (f"UPDATE run SET audience = 15 WHERE {IN_HELLO.replace('run_id', 'id')}",)),
    ("INV-2", "was chosen 1 times and has 0 rows", (
        f"DELETE FROM message WHERE {IN_HELLO} AND contact_id = {contact('p01')}",
    )),
    ("INV-2", "was chosen 2 times and has 1 rows", (  # the numbers still add up
        f"DELETE FROM message WHERE {IN_HELLO} AND contact_id = {contact('p01')}",
        *copied("message", f"{IN_HELLO} AND contact_id = {contact('p-phone')}",
                f"id = gen_random_uuid(), contact_id = {contact('p02')}, channel = 'sms'"),
        f"UPDATE audience_page SET contact_ids = array_replace(contact_ids, {contact('p01')}, {contact('p00')}) "
        f"WHERE {IN_HELLO}",
    )),
    ("INV-2", "is finished and has", ("UPDATE run SET finished_at = created_at WHERE state = 'running'",)),
    ("INV-5", "before it was authorised", (
        f"UPDATE message SET handed_over_at = authorised_at - interval '1 microsecond' WHERE {ONE_SENT}",
    )),
    ("INV-5", "after its deadline", (
        f"UPDATE message SET handed_over_at = send_deadline + interval '1 microsecond' WHERE {ONE_SENT}",
    )),
    ("INV-6", "was authorised after suppression", (
        "UPDATE suppression SET order_seq = 0",
        "UPDATE message SET authorise_seq = 1 WHERE status = 'failed'",
    )),
    ("INV-6", "had never granted it", (
        f"UPDATE consent_event SET action = 'requested' WHERE contact_id = {contact('p01')}",
    )),
    ("INV-6", "had never granted it", (  # it came too late
        f"UPDATE consent_event SET order_seq = nextval('order_seq') WHERE contact_id = {contact('p01')}",
    )),
    ("INV-6", "was authorised after withdrawal", (  # the grant after it is no act of the person
        f"UPDATE consent_event SET actor = 'import' WHERE contact_id = {contact('p06')} AND source LIKE 'form%'",
    )),
    ("INV-6", "had expired", (
        f"""UPDATE consent_event SET basis = 'implied_purchase', occurred_at = '2001-01-01T00:00:00Z'
            WHERE contact_id = {contact('p01')}""",
    )),
    ("INV-7", "was under way when unsubscribe", (
        f"""UPDATE unsubscribe u SET answered_at = m.handed_over_at - interval '1 microsecond' FROM message m
            WHERE m.contact_id = u.contact_id AND m.{IN_HELLO}""",
    )),
    ("INV-7", "left after unsubscribe", (
        f"UPDATE consent_event SET actor = 'import' WHERE contact_id = {contact('p06')} AND source LIKE 'form%'",
    )),
    ("INV-7", "left after unsubscribe", (  # a goodbye that was answered, and not written down
        f"""DELETE FROM consent_event
            WHERE contact_id = {contact('p06')} AND (action = 'withdrawn' OR source LIKE 'form%')""",
    )),
    ("INV-8", "beyond cap narrow of its contact", (with_cap('{"name": "narrow", "max": 1, "window": "24h"}'),)),
    ("INV-8", "beyond cap gap of its contact", (with_cap('{"name": "gap", "min_gap": "24h"}'),)),
    ("INV-8", "beyond cap daily of its contact", (with_cap('{"name": "daily", "max": 1, "calendar": "day"}'),)),
    ("INV-8", "beyond cap monthly of its address", (with_cap('{"name": "monthly", "max": 1, "calendar": "month"}'),)),
    ("INV-8", "beyond cap daily of its address", (  # the shop's own: two in 24 hours
        *NO_UNIQUENESS,
        f"""UPDATE message SET address_id = (SELECT email_address_id FROM contact WHERE id = {contact('p00')})
            WHERE {SENT} AND contact_id = {contact('p01')} AND NOT {IN_HELLO}""",
    )),
    ("INV-8", "beyond cap law-br-1 of its contact", (  # the code of conduct there: two in 24 hours
        *NO_UNIQUENESS,
        "UPDATE contact SET phone_region = 'BR' WHERE external_id = 'p-phone'",
        *(statement for minutes in (1, 2) for statement in (
            "DROP TABLE IF EXISTS copied",
            *copied("message", "channel = 'sms' AND status = 'sent'",
                    f"id = gen_random_uuid(), authorised_at = authorised_at - interval '{minutes} minutes'"),
        )),
    )),
    ("INV-9", "in quiet hours of contact", (  # the phone says Rhode Island, the address Japan: no hour suits both
        "UPDATE contact SET phone_region = '1401', country = 'JP', zone = 'Asia/Tokyo' WHERE external_id = 'p-phone'",
    )),
    ("INV-9", "in quiet hours of contact", (new_rules("{quiet_hours,email}", '["00:00-24:00"]'),)),
    ("INV-9", "in quiet hours of contact", (  # the default for texts
        "UPDATE contact SET zone = 'Asia/Tokyo' WHERE external_id = 'p-phone'",
    )),
    ("INV-9", "the place of contact", (
        new_rules("{shop,countries}", "[]"),
        "UPDATE contact SET zone = NULL, country = NULL WHERE external_id = 'p01'",
    )),
    ("INV-10", "before it was due", (
        f"UPDATE message SET due_at = handed_over_at + interval '1 microsecond' WHERE {ONE_SENT}",
    )),
    ("INV-10", "after it expired", (
        f"UPDATE message SET expires_at = handed_over_at - interval '1 microsecond' WHERE {ONE_SENT}",
    )),
    ("INV-11", "has 2 runs for occurrence", (
        "ALTER TABLE run DROP CONSTRAINT run_campaign_id_occurrence_key_key",
        *copied("run", "name = 'third'", "id = gen_random_uuid()"),
    )),
    ("INV-11", "was fired 2 times for one instant", (
        "UPDATE run SET started_by = 'schedule', nominal_at = as_of WHERE name = 'third'",
        *copied("run", "name = 'third'", "id = gen_random_uuid(), occurrence_key = 'the same in another zone'"),
    )),
    ("INV-4", "is delivered and nobody reported it", (f"UPDATE message SET status = 'delivered' WHERE {ONE_SENT}",)),
    ("INV-12", "is sent, and was reported bounced", (
        f"""INSERT INTO feedback (source, event_key, kind, message_id, occurred_at, received_at)
            SELECT 'sendgrid', 'x', 'bounced', id, authorised_at, authorised_at FROM message WHERE {ONE_SENT}""",
    )),
    ("INV-12", "is sent and was never handed over", (f"UPDATE message SET handed_over_at = NULL WHERE {ONE_SENT}",)),
    ("INV-12", "is pending and carries traces", (
        "UPDATE message SET authorised_at = due_at WHERE status = 'pending'",
    )),
    ("INV-12", "is skipped and carries traces", (
        "UPDATE message SET handed_over_at = due_at WHERE status = 'skipped'",
    )),
    ("INV-12", "is unknown and was never properly authorised", (
        "UPDATE message SET provider = NULL WHERE status = 'unknown'",
    )),
    ("INV-12", "is sending and is in the hands of no worker", (
        f"UPDATE message SET status = 'sending', settled_at = NULL, worker_id = NULL WHERE {ONE_SENT}",
    )),
    ("INV-12", "is failed and has no reason", ("UPDATE message SET reason = NULL WHERE status = 'failed'",)),
    ("INV-12", "has a reason nobody knows", ("UPDATE message SET reason = 'BORED' WHERE status = 'skipped'",)),
    ("INV-12", "has no instant of settling", ("UPDATE message SET settled_at = NULL WHERE status = 'skipped'",)),
    ("INV-12", "belongs to a run that does not exist", ("DELETE FROM run WHERE name = 'third'",)),
    ("INV-12", "goes to an address that does not exist", (f"UPDATE message SET address_id = 999 WHERE {ONE_SENT}",)),
    ("INV-12", "goes to an address of another channel", (
        f"UPDATE message SET address_id = (SELECT id FROM address WHERE channel = 'sms' LIMIT 1) WHERE {ONE_SENT}",
    )),
    ("INV-12", "is under other rules than its run", (f"UPDATE message SET class = 'transactional' WHERE {ONE_SENT}",)),
    ("INV-12", "is under other rules than its run", (f"UPDATE message SET topic = 'letters' WHERE {ONE_SENT}",)),
    ("INV-12", "is missing or disabled", ("ALTER TABLE message DISABLE TRIGGER message_moves",)),
    ("INV-12", "the database and the code disagree on the move from", (
        """CREATE OR REPLACE FUNCTION message_move_is_legal(old_status text, new_status text) RETURNS boolean
           LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT true'""",
    )),
    ("INV-13", "may have been accepted, and another followed", ("UPDATE attempt SET outcome = 'unknown'",)),
    ("INV-13", "counts 2 tries, and 0 are filed beside the latest", ("DELETE FROM attempt",)),
    ("INV-13", "before the last one was settled", ("UPDATE attempt SET settled_at = settled_at + interval '1 day'",)),
    ("INV-16", "is missing at the end", ("DELETE FROM consent_event WHERE id = (SELECT max(id) FROM consent_event)",)),
    ("INV-16", "was changed after it was written", ("UPDATE consent_event SET source = 'a form' WHERE id = 3",)),
    ("INV-16", "consent evidence 3 to 3 is missing", ("DELETE FROM consent_event WHERE id = 3",)),
    ("INV-16", "says something else", (f"UPDATE consent SET state = 'withdrawn' WHERE contact_id = {contact('p01')}",)),
    ("INV-16", "evidence can be changed", ("ALTER TABLE consent_event DISABLE TRIGGER consent_event_append_only",)),
    ("INV-17", "was over its rate by 1", (  # 10 at once, and two hands with a slice each
        "UPDATE lane SET rate_per_second = 0.001, burst = 10",
        f"""INSERT INTO attempt (message_id, number, authorised_at, outcome)
            SELECT message_id, number + n, (SELECT max(authorised_at) + interval '9 days' FROM message), 'not_sent'
            FROM attempt, generate_series(1, {10 + 2 * Sandbox.slice_size + 1}) AS n""",
    )),
    ("INV-17", "account sandbox was over its rate by", (  # in parts of SMS: five each, where four would just do
        "INSERT INTO account (name, rate_per_second, burst, reserve) VALUES ('sandbox', 0.001, 10, 0)",
        f"""INSERT INTO attempt (message_id, number, authorised_at, outcome, provider, units)
            SELECT message_id, number + n, (SELECT max(authorised_at) + interval '9 days' FROM message), 'not_sent',
                   'sandbox', 5
            FROM attempt, generate_series(1, {(10 + 2 * Sandbox.slice_size) // 4}) AS n""",
    )),
    ("INV-18", "do not add up", (f"UPDATE run SET audience = 15 WHERE {IN_HELLO.replace('run_id', 'id')}",)),
    ("INV-19", "which is finished", ("UPDATE batch SET state = 'done'",)),
    ("INV-19", "which does not exist", ("DELETE FROM batch",)),
    ("INV-19", "which belongs to another run", (
        "UPDATE batch SET run_id = (SELECT id FROM run WHERE name = 'third') WHERE state = 'ready'",
    )),
    ("INV-20", "is sealed under a key that is there", (f"UPDATE contact SET data_key = '\\x00' WHERE {GONE}",)),
    ("INV-20", "has an address", (f"UPDATE contact SET sms_address_id = 1 WHERE {GONE}",)),
    ("INV-20", "has attributes or a place", (f"UPDATE contact SET zone = 'Europe/London' WHERE {GONE}",)),
    ("INV-20", "has a message with data", (f"UPDATE message SET sealed = '\\x00' WHERE {THEIRS}",)),
    ("INV-20", "has a message on the wire", (f"UPDATE message SET status = 'sending' WHERE {THEIRS}",)),
    ("INV-20", "has interests", (
        f"INSERT INTO interest SELECT id, 'christmas', 1, 90 FROM contact WHERE {GONE}",
    )),
    ("INV-20", "was authorised after erasure", (
        f"UPDATE message SET authorise_seq = nextval('order_seq') WHERE {THEIRS}",
    )),
    ("INV-20", "has an e-mail address that was erased", (
        f"""UPDATE contact SET email_address_id = (SELECT address_id FROM message WHERE {THEIRS} LIMIT 1)
            WHERE external_id = 'p00'""",
    )),
    ("INV-20", "the audit has no proof", ("DELETE FROM audit WHERE action = 'erasure.done'",)),
    ("INV-21", "was changed after it was linked", ("UPDATE audit SET actor = 'nobody' WHERE id = 1",)),
    ("INV-21", "audit entry 1 was deleted", ("DELETE FROM audit WHERE id = 1",)),
    ("INV-21", "links 1 to 1 of the audit are missing", ("DELETE FROM audit_link WHERE number = 1",)),
    ("INV-21", "are missing at the end", (
        "DELETE FROM audit_link WHERE number = (SELECT max(number) FROM audit_link)",
    )),
    ("INV-21", "the audit can be changed", ("ALTER TABLE audit DISABLE TRIGGER audit_append_only",)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "finding", "statements"), BROKEN, ids=[f"{b[0]}: {b[1]}" for b in BROKEN])
def test_what_is_broken_in_the_ledger_is_found(
    ledger: Ledger, name: str, finding: str, statements: tuple[str, ...]
) -> None:
    result = look_for(name, ledger, *statements)

    assert result.status == "broken"
    assert any(finding in each for each in result.findings), result.findings
    assert result.total >= len(result.findings)


def test_a_rate_that_is_just_kept_holds(ledger: Ledger) -> None:
    results = look(
        ledger,
        "UPDATE lane SET rate_per_second = 0.001, burst = 10",
        f"""INSERT INTO attempt (message_id, number, authorised_at, outcome)
            SELECT message_id, number + n, (SELECT max(authorised_at) + interval '9 days' FROM message), 'not_sent'
            FROM attempt, generate_series(1, {10 + 2 * Sandbox.slice_size}) AS n""",
    )

    assert results["INV-17"].status == "holds"


def test_rules_that_came_later_are_not_held_against_what_was_sent_before(ledger: Ledger) -> None:
    results = look(
        ledger,
        with_cap('{"name": "narrow", "max": 1, "calendar": "day"}, {"name": "gap", "min_gap": "24h"}'),
        new_rules("{quiet_hours,email}", '["00:00-24:00"]'),
        "INSERT INTO audit (actor, action, subject) VALUES ('test', 'shop.changed', 'Small Shop')",
    )

    assert results["INV-8"].status == results["INV-9"].status == "holds"
    assert "not what was authorised before" in results["INV-8"].note


def test_a_withdrawal_before_a_merge_counts_for_its_own_address_only(ledger: Ledger) -> None:
    """p09 was merged into p08 after `hello`, which both got at their own addresses; then p08 got `again`."""
    late = "(SELECT id FROM contact WHERE external_id = 'p09')"
    with tampered(ledger) as connection:
        wanted = connection.scalar(text(f"SELECT id FROM message WHERE contact_id = {late} AND status = 'sent'"))
    results = look(
        ledger,
        *copied("consent_event", f"contact_id = {late}", "action = 'withdrawn', id = id + 1000, hash = '\\x00'"),
    )

    assert results["INV-6"].findings == (f"message {wanted} was authorised after withdrawal 1010",)


def test_a_report_that_miscounts_is_found(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    count = accounting.run_report

    def miscount(connection: Connection, run_id: Any) -> dict[str, Any]:
        report = count(connection, run_id)
        return report | {"status": {status: number + 1 for status, number in report["status"].items()}}

    monkeypatch.setattr(accounting, "run_report", miscount)

    assert "numbers are not the ledger's" in look(ledger)["INV-18"].findings[0]


def test_whoever_withdraws_for_good_is_found_in_later_authorisations(ledger: Ledger) -> None:
    with tampered(ledger) as connection:
        contact_id = connection.scalar(text(f"SELECT {contact('p02')}"))
        say(connection, ledger.key_ring, contact_id, [("email", "offers", "withdrawn")])
        assert "INV-6" not in broken(by_name(verify(connection, ledger.key_ring)))
        connection.execute(
            text("UPDATE message SET authorise_seq = nextval('order_seq') WHERE contact_id = :id AND status = 'sent'"),
            {"id": contact_id},
        )
        result = by_name(verify(connection, ledger.key_ring))["INV-6"]

    assert result.total == 2
