"""Does `verify` see where a provider's log and the ledger differ?  The log is changed in one thing at a time."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ledger import Ledger, tampered
from sqlalchemy import text
from sqlalchemy.engine import URL
from verifying import ONE_SENT, Line, a_shop, broken, by_name, look, look_for, written

from dispatcher.errors import Refused
from dispatcher.tokens import PreferenceTokens, WayHome
from dispatcher.verify import Result, verify


@pytest.fixture(scope="module")
def ledger(
    template_database: URL, servers: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ledger]:
    with a_shop(template_database, servers[0], tmp_path_factory.mktemp("shop")) as ledger:
        yield ledger


def test_a_message_accepted_twice_is_found(ledger: Ledger, tmp_path: Path) -> None:
    lines = ledger.lines()
    results = look(ledger, log=written(tmp_path, [*lines, lines[0]]))

    assert broken(results) == {"INV-1"}
    assert results["INV-1"].findings[0].startswith(f"message {lines[0]['message_id']} was accepted 2 times")


def test_two_messages_of_a_run_to_one_contact_or_address_are_found(ledger: Ledger, tmp_path: Path) -> None:
    lines = ledger.lines()
    lines.append(lines[0] | {"message_id": lines[1]["message_id"]})
    results = look(ledger, log=written(tmp_path, lines))

    assert results["INV-1"].total == 3  # and the message itself was accepted twice
    assert {"INV-1", "INV-3"} <= broken(results)


def test_a_transactional_message_of_unknown_outcome_may_be_resent_once(ledger: Ledger, tmp_path: Path) -> None:
    lines = ledger.lines()
    order = next(line for line in lines if line["subject"] == "Your order")
    twice = written(tmp_path, [*lines, order])
    filed = f"""INSERT INTO attempt (message_id, number, authorised_at, send_deadline, settled_at, outcome)
                SELECT id, 1, authorised_at, send_deadline, authorised_at, 'unknown' FROM message
                WHERE id = '{order["message_id"]}'"""

    assert "INV-1" in broken(look(ledger, log=twice))
    counted = f"UPDATE message SET attempts = 2 WHERE id = '{order['message_id']}'"
    assert not broken(look(ledger, filed, counted, log=twice))


def swap(part: str) -> Callable[[list[Line]], object]:
    """Exchange a part of the first two mails."""

    def exchange(lines: list[Line]) -> None:
        lines[0][part], lines[1][part] = lines[1][part], lines[0][part]

    return exchange


def header(line: Line, name: str, *values: str) -> None:
    line["headers"] = [pair for pair in line["headers"] if pair[0] != name] + [[name, value] for value in values]


def later(instant: str, seconds: int) -> str:
    return (datetime.fromisoformat(instant) + timedelta(seconds=seconds)).isoformat()


AGAINST_THE_LOG: list[tuple[str, str, Callable[[list[Line]], object]]] = [
    ("INV-3", "is not in this ledger", lambda lines: lines.append(lines[0] | {"message_id": str(uuid.uuid4())})),
    ("INV-3", "for another address", lambda lines: lines[0].update(to="somebody@else.example")),
    ("INV-3", "for another address", lambda lines: lines[0].update(to="not an address")),
    ("INV-3", "for another run", lambda lines: lines[0].update(run=str(uuid.uuid4()))),
    ("INV-3", "for another contact", lambda lines: lines[0].update(contact="no-consent")),
    ("INV-3", "for another contact", lambda lines: lines[0].update(contact="nobody")),
    ("INV-3", "line 1 is not an acceptance", lambda lines: lines[0].pop("to")),
    ("INV-3", "line 1 is not an acceptance", lambda lines: lines[0].update(at="yesterday")),
    ("INV-3", "line 1 is not an acceptance", lambda lines: lines[0].update(contact="p\x0000")),
    ("INV-4", "is sent and has no acceptance", lambda lines: lines.pop(0)),
    ("INV-5", "at a time it was not authorised for", lambda lines: lines[0].update(at=later(lines[0]["at"], -10))),
    ("INV-5", "at a time it was not authorised for", lambda lines: lines[0].update(at=later(lines[0]["at"], 21))),
    ("INV-10", "after it expired", lambda lines: lines[0].update(at=later(lines[0]["at"], 24 * 3600))),
    ("INV-10", "before it was due", lambda lines: lines[0].update(at=later(lines[0]["at"], -10))),
    ("INV-14", "opens contact", swap("headers")),
    ("INV-14", "the link in the body", swap("html")),
    ("INV-14", "does not open", lambda lines: header(lines[0], "List-Unsubscribe", "<https://shop.example/u/abc>")),
    ("INV-14", "has 0 List-Unsubscribe headers", lambda lines: header(lines[0], "List-Unsubscribe")),
    ("INV-14", "has no List-Unsubscribe-Post", lambda lines: header(lines[0], "List-Unsubscribe-Post", "yes")),
    ("INV-15", "of somebody else", lambda lines: lines[0].update(html=f"<p>Dear {lines[1]['to'].upper()}.</p>")),
    ("INV-15", "of somebody else", lambda lines: lines[0].update(text="/?to=" + lines[1]["to"].replace("@", "%40"))),
    ("INV-15", "of somebody else", lambda lines: header(lines[0], "To", lines[1]["to"])),
]


@pytest.mark.parametrize(
    ("name", "finding", "tamper"),
    AGAINST_THE_LOG,
    ids=[f"{each[0]}: {each[1]}" for each in AGAINST_THE_LOG],
)
def test_what_the_log_says_otherwise_is_found(
    ledger: Ledger, tmp_path: Path, name: str, finding: str, tamper: Callable[[list[Line]], object]
) -> None:
    lines = ledger.lines()
    tamper(lines)
    result = look_for(name, ledger, log=written(tmp_path, lines))

    assert result.status == "broken"
    assert any(finding in each for each in result.findings), result.findings


def test_a_link_to_somebody_elses_page_is_found_and_one_to_their_own_is_not(ledger: Ledger, tmp_path: Path) -> None:
    def with_link_of(external_id: str) -> Result:
        query = text("SELECT id, email_address_id FROM contact WHERE external_id = :id")
        with ledger.database.connect() as connection:
            contact_id, address_id = connection.execute(query, {"id": external_id}).one()
        lines = ledger.lines()
        mail = next(line for line in lines if line["contact"] == "p00")
        token = PreferenceTokens(ledger.key_ring).make(WayHome(contact_id, "email", address_id))
        mail["text"] += f"\nhttps://shop.example/p/{token}\nhttps://shop.example/p/shoes.AAAAAAAAAAAAAAAAAAAAAA\n"
        return look(ledger, log=written(tmp_path, lines))["INV-14"]

    assert with_link_of("p00").status == "holds"
    assert "the link to a page of message" in with_link_of("p01").findings[0]


def test_an_acceptance_of_what_the_ledger_calls_failed_is_found(ledger: Ledger) -> None:
    failed = look(ledger, f"UPDATE message SET status = 'failed', reason = 'REJECTED' WHERE {ONE_SENT}", log=ledger.log)
    open_ = f"UPDATE message SET status = 'sending', settled_at = NULL WHERE {ONE_SENT}"
    in_hand = "UPDATE batch SET state = 'claimed'"

    assert "the ledger says failed" in failed["INV-3"].findings[0]
    assert "the ledger says sending" in look(ledger, open_, log=ledger.log)["INV-3"].findings[0]
    assert look(ledger, open_, in_hand, log=ledger.log)["INV-3"].status == "holds"


def test_bytes_after_a_goodbye_are_found_in_the_log_alone(ledger: Ledger, tmp_path: Path) -> None:
    lines = ledger.lines()
    hello = next(line for line in lines if line["contact"] == "p06")
    hello["at"] = later(hello["at"], 600)

    assert look(ledger, log=ledger.log)["INV-7"].status == "holds"
    result = look(ledger, log=written(tmp_path, lines))["INV-7"]
    assert "was under way when unsubscribe" in result.findings[0]
    assert hello["message_id"] in result.findings[0]


def test_bytes_at_night_are_found_in_the_log_alone(ledger: Ledger, tmp_path: Path) -> None:
    lines = ledger.lines()
    short = next(line for line in lines if line["channel"] == "sms")
    short["at"] = later(short["at"], 12 * 3600)

    assert short["message_id"] in look(ledger, log=written(tmp_path, lines))["INV-9"].findings[0]


def test_a_try_that_was_filed_as_not_sent_and_was_accepted_is_found(ledger: Ledger, tmp_path: Path) -> None:
    with ledger.database.connect() as connection:
        row = connection.execute(text("SELECT message_id::text AS id, authorised_at FROM attempt")).one()
    lines = ledger.lines()
    again = next(line for line in lines if line["message_id"] == row.id)
    first = again | {"at": (row.authorised_at + timedelta(microseconds=1)).isoformat()}
    results = look(ledger, log=written(tmp_path, [first, *lines]))

    assert "was accepted on try 1, which is filed as not_sent" in results["INV-13"].findings[0]
    assert "INV-1" in broken(results)


def test_a_message_may_carry_its_own_address_and_the_shops(ledger: Ledger, tmp_path: Path) -> None:
    lines = ledger.lines()
    for line in lines:
        line["text"] += f" {line['to']} hello@small.example stranger@elsewhere.example"

    assert not broken(look(ledger, log=written(tmp_path, lines)))


def test_a_line_that_a_killed_writer_left_torn_is_counted_and_no_crash(ledger: Ledger, tmp_path: Path) -> None:
    whole = ledger.log.read_bytes()
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"message_id":"0\n' + whole + b'{"message_id":"01a2')
    with ledger.database.connect() as connection:
        report = verify(connection, ledger.key_ring, path)

    assert report.ok
    assert report.provider_log is not None
    assert report.provider_log["torn"] == 2
    assert report.provider_log["torn_lines"] == [1, len(ledger.lines()) + 2]
    assert "2 torn lines" in by_name(report)["INV-3"].note

    path.write_bytes(whole[:-20])  # what was sent and cannot be read is missing
    assert broken(look(ledger, log=path)) == {"INV-4"}


@pytest.mark.parametrize("alive", [True, False])
def test_lines_of_live_workers_that_are_newer_than_the_look_are_left_out(
    ledger: Ledger, tmp_path: Path, alive: bool
) -> None:
    lines = ledger.lines()
    newer = lines[0] | {"message_id": str(uuid.uuid4()), "run": str(uuid.uuid4()), "at": later(lines[-1]["at"], 3600)}
    ended = "NULL" if alive else "clock_timestamp()"
    with tampered(ledger) as connection:
        connection.execute(text(f"UPDATE worker SET heartbeat_at = clock_timestamp(), ended_at = {ended}"))
        report = verify(connection, ledger.key_ring, written(tmp_path, [*lines, newer]))

    assert report.provider_log is not None
    assert report.provider_log["newer"] == (1 if alive else 0)
    assert report.ok is alive


def test_a_log_that_is_not_there_is_refused_in_one_line(ledger: Ledger, tmp_path: Path) -> None:
    with ledger.database.connect() as connection, pytest.raises(Refused, match=r"cannot be read: No such file"):
        verify(connection, ledger.key_ring, tmp_path / "nothing.jsonl")
    with ledger.database.connect() as connection, pytest.raises(Refused, match=r"cannot be read: Is a directory"):
        verify(connection, ledger.key_ring, tmp_path)


def test_a_log_of_noise_is_no_crash(ledger: Ledger, tmp_path: Path) -> None:
    noise = [b"null", b"[]", b"{}", b"1e999", b'{"headers": 5}', b"\xff\xfe", b"\x00", b"", b'"' + b"x" * 100_000]
    lines = ledger.lines()
    strange: list[Line] = [
        lines[0] | {name: value}
        for name in lines[0]
        for value in (None, 5, [], {}, "", "\x00", "\ud800", [[]], [[1, 2]])
    ]
    report = look(ledger, log=written(tmp_path, [*lines, *strange], b"\n".join(noise)))

    assert "INV-3" in broken(report)
