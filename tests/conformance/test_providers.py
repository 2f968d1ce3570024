"""What every provider does, whichever it is.  A new one is added to BENCHES and passes all of this."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from envelopes import ACCOUNT_SID, SERVICE_SID, make_mail, make_text
from house import free_port
from mail_server import mail_server
from standins import Call, Say, sendgrid_error, stand_in, twilio_error

from dispatcher.providers.http import Http
from dispatcher.providers.protocol import (
    Accepted,
    Envelope,
    Moment,
    NotSent,
    Provider,
    Receipt,
    Rejected,
    Unknown,
    boot_seconds,
)
from dispatcher.providers.sandbox import Sandbox
from dispatcher.providers.sendgrid import SendGrid
from dispatcher.providers.smtp import Smtp
from dispatcher.providers.smtp.connection import server_at
from dispatcher.providers.twilio import Twilio


@dataclass
class Bench:
    """A provider, what it talks to, and how to make that behave."""

    provider: Provider
    good: Callable[[int], Envelope]
    refused: Callable[[int], Envelope]  #: its address cannot work
    lost: Callable[[int], Envelope]  #: it is accepted, and nobody hears of it
    accepted: Callable[[], list[str]]  #: message ids, by the other side's own record
    unreachable: Callable[[], Provider] | None  #: the same, with nobody at the other end


def _sandbox(folder: Path, _stack: ExitStack) -> Bench:
    provider = Sandbox(folder, "email")
    (folder / "faults.json").write_text(
        json.dumps({"reject": [f"p{n}" for n in range(500, 600)], "unknown": [f"p{n}" for n in range(600, 700)]})
    )

    def accepted() -> list[str]:
        outbox = folder / "outbox.jsonl"
        return [json.loads(line)["message_id"] for line in outbox.read_text().splitlines()] if outbox.exists() else []

    return Bench(provider, make_mail, make_mail, make_mail, accepted, None)


def _sendgrid(_folder: Path, stack: ExitStack) -> Bench:
    api = stack.enter_context(stand_in())

    def answers(call: Call) -> Say | None:
        numbers = [int(re.sub(r"\D", "", person.to)) for person in call.people]
        wrong = [place for place, number in enumerate(numbers) if 500 <= number < 600]
        if wrong:
            return sendgrid_error(400, *((f"personalizations.{place}.to.0.email", "bad") for place in wrong))
        return Say(202, accept=True, lose=True) if any(600 <= number < 700 for number in numbers) else None

    api.answers = answers
    return Bench(
        SendGrid(Http(), api_key="k", url=api.url), make_mail, make_mail, make_mail, api.ids,
        lambda: SendGrid(Http(), api_key="k", url=f"http://127.0.0.1:{free_port()}"),
    )  # fmt: skip


def _twilio(_folder: Path, stack: ExitStack) -> Bench:
    api = stack.enter_context(stand_in())

    def made(url: str) -> Provider:
        return Twilio(
            Http(), account_sid=ACCOUNT_SID, auth_token="t", messaging_service_sid=SERVICE_SID,
            public_url="https://shop.example", url=url,
        )  # fmt: skip

    def answers(call: Call) -> Say | None:
        number = int(call.people[0].to[-5:])
        if 500 <= number < 600:
            return twilio_error(21211)
        return Say(201, accept=True, lose=True) if 600 <= number < 700 else None

    api.answers = answers
    return Bench(
        made(api.url), make_text, make_text, make_text, api.ids, lambda: made(f"http://127.0.0.1:{free_port()}")
    )


def _smtp(folder: Path, stack: ExitStack) -> Bench:
    server = stack.enter_context(mail_server(folder))

    def accepted() -> list[str]:
        pattern = re.compile(rb"X-Dispatcher-Message-Id: (\S+)")
        return [pattern.findall(mail["mail"])[0].decode() for mail in server.taken()]

    return Bench(
        Smtp(server_at(f"smtp://127.0.0.1:{server.port}")),
        make_mail,
        lambda number: make_mail(number, to=f"rcpt-550-5.1.1-{number}@people.example"),
        lambda number: make_mail(number, to=f"drop-after-dot-{number}@people.example"),
        accepted,
        lambda: Smtp(server_at(f"smtp://127.0.0.1:{free_port()}")),
    )


BENCHES = {"sandbox": _sandbox, "sendgrid": _sendgrid, "twilio": _twilio, "smtp": _smtp}


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        made = BENCHES[request.param](tmp_path, stack)
        yield made
        made.provider.close()


def hand_over(provider: Provider, envelopes: list[Envelope], *, seconds: float = 20) -> list[Receipt]:
    moment = Moment(datetime.now(UTC), boot_seconds())
    return provider.hand_over(envelopes, moment, moment.boot + seconds)


@pytest.mark.parametrize("count", [1, 2, 45])
def test_each_message_is_accepted_once_and_has_a_receipt_of_its_own(bench: Bench, count: int) -> None:
    envelopes = [bench.good(number) for number in range(count)]
    before = boot_seconds()
    receipts = hand_over(bench.provider, envelopes)
    after = boot_seconds()

    assert len(receipts) == count
    for receipt in receipts:
        assert isinstance(receipt, Accepted)
        assert receipt.ref
        assert before <= receipt.handed_over <= after
        assert receipt.units >= 1
    assert sorted(bench.accepted()) == sorted(str(envelope.message_id) for envelope in envelopes)


def test_nothing_to_hand_over_is_no_receipt(bench: Bench) -> None:
    assert hand_over(bench.provider, []) == []


def test_past_the_deadline_nothing_is_handed_over(bench: Bench) -> None:
    receipts = hand_over(bench.provider, [bench.good(number) for number in range(3)], seconds=0)

    assert [type(receipt) for receipt in receipts] == [NotSent] * 3
    assert bench.accepted() == []


def test_an_address_that_cannot_work_is_suppressed_and_the_others_are_accepted(bench: Bench) -> None:
    envelopes = [bench.good(0), bench.refused(500), bench.good(1), bench.refused(501), bench.good(2)]
    receipts = hand_over(bench.provider, envelopes)

    assert [type(receipt) for receipt in receipts] == [Accepted, Rejected, Accepted, Rejected, Accepted]
    for receipt in receipts:
        if isinstance(receipt, Rejected):
            assert receipt.suppress in ("invalid", "hard_bounce")
    assert sorted(bench.accepted()) == sorted(str(envelopes[place].message_id) for place in (0, 2, 4))


def test_an_acceptance_that_nobody_heard_of_is_doubt_and_is_not_repeated(bench: Bench) -> None:
    before = boot_seconds()
    [receipt] = hand_over(bench.provider, [bench.lost(600)])

    assert isinstance(receipt, Unknown)
    assert before <= receipt.handed_over <= boot_seconds()
    assert bench.accepted() == [str(bench.lost(600).message_id)]


def test_after_a_doubt_the_next_message_goes_as_ever(bench: Bench) -> None:
    hand_over(bench.provider, [bench.lost(600)])

    assert isinstance(hand_over(bench.provider, [bench.good(1)])[0], Accepted)


def test_with_nobody_at_the_other_end_nothing_was_sent(bench: Bench) -> None:
    if bench.unreachable is None:
        pytest.skip("it has no other end")
    provider = bench.unreachable()
    receipts = hand_over(provider, [bench.good(number) for number in range(3)])
    provider.close()

    assert [isinstance(receipt, NotSent) and receipt.unreachable for receipt in receipts] == [True] * 3


def test_asking_about_our_account_sends_nothing_and_an_absence_proves_nothing(bench: Bench) -> None:
    found = bench.provider.try_account(5)

    assert found
    assert all(trial.detail and (trial.ok or trial.to_do) for trial in found)
    assert bench.accepted() == []
    if bench.unreachable is not None:
        assert [trial.ok for trial in bench.unreachable().try_account(5)] == [None]


def test_several_threads_share_it_and_nobody_is_written_to_twice(bench: Bench) -> None:
    slices = [[bench.good(100 * thread + number) for number in range(20)] for thread in range(4)]
    receipts: list[Receipt] = []
    threads = [
        threading.Thread(target=lambda own=own: receipts.extend(hand_over(bench.provider, own))) for own in slices
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [type(receipt) for receipt in receipts] == [Accepted] * 80
    assert len(bench.accepted()) == len(set(bench.accepted())) == 80


def test_no_receipt_tells_whom_it_is_about(bench: Bench) -> None:
    receipts = hand_over(bench.provider, [bench.good(1), bench.refused(500)])
    receipts += hand_over(bench.provider, [bench.lost(600)])

    assert not re.search(r"people\.example|4477009|First\d", repr(receipts))


def test_it_has_a_name_a_size_and_may_be_closed_twice(bench: Bench) -> None:
    assert bench.provider.name in BENCHES
    assert 1 <= bench.provider.slice_size <= 1_000
    bench.provider.close()
    bench.provider.close()
