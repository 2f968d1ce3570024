"""Whatever breaks on the way to a provider's API: a receipt never says more than is known, nothing is sent twice."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import write_certificate
from envelopes import ACCOUNT_SID, SERVICE_SID, make_mail, make_text
from fault_proxy import Fault, FaultProxy, fault_proxy
from house import eventually, free_port
from standins import StandIn, stand_in

from dispatcher.providers.http import Http
from dispatcher.providers.protocol import (
    Accepted,
    Envelope,
    Moment,
    NotSent,
    Provider,
    Receipt,
    Rejected,
    RetryAfter,
    Unknown,
    boot_seconds,
)
from dispatcher.providers.sendgrid import SendGrid
from dispatcher.providers.twilio import Twilio

Made = tuple[Provider, list[Envelope]]
Make = Callable[..., Made]
IMPATIENT = 0.7  # seconds for an answer, where none comes
PATIENT = 20.0


def _sendgrid(url: str, patience: float = PATIENT) -> Made:
    provider = SendGrid(Http(answer_seconds=patience), api_key="SG.secret", url=url)
    return provider, [make_mail(number) for number in range(3)]


def _twilio(url: str, patience: float = PATIENT) -> Made:
    provider = Twilio(
        Http(answer_seconds=patience), account_sid=ACCOUNT_SID, auth_token="secret", messaging_service_sid=SERVICE_SID,
        public_url="https://shop.example", url=url,
    )  # fmt: skip
    return provider, [make_text(number) for number in range(3)]


@pytest.fixture
def api() -> Iterator[StandIn]:
    with stand_in() as api:
        yield api


@pytest.fixture
def network(api: StandIn) -> Iterator[FaultProxy]:
    with fault_proxy(api.url) as proxy:
        yield proxy


@pytest.fixture(params=[_sendgrid, _twilio], ids=["sendgrid", "twilio"])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


def hand_over(made: Made, *, seconds: float = 20) -> list[Receipt]:
    provider, envelopes = made
    moment = Moment(datetime.now(UTC), boot_seconds())
    try:
        return provider.hand_over(envelopes, moment, moment.boot + seconds)
    finally:
        provider.close()


def kinds(receipts: list[Receipt]) -> set[type]:
    return {type(receipt) for receipt in receipts}


def test_all_is_well_through_the_proxy(make: Make, network: FaultProxy, api: StandIn) -> None:
    before = boot_seconds()
    receipts = hand_over(make(network.url))

    assert kinds(receipts) == {Accepted}
    assert len(api.ids()) == len(set(api.ids())) == 3
    assert api.complaints == []
    for receipt, taken in zip(receipts, api.taken, strict=True):
        assert isinstance(receipt, Accepted)
        assert receipt.ref
        assert before <= receipt.handed_over <= taken.at + 1


def test_a_refused_connection_is_proof_that_nothing_was_sent(make: Make) -> None:
    assert kinds(hand_over(make(f"http://127.0.0.1:{free_port()}"))) == {NotSent}


def test_who_cannot_prove_who_they_are_gets_not_one_byte_of_the_request(make: Make, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write_certificate(tmp_path))
    got: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):  # the handshake is broken off
            while True:
                client, _ = listener.accept()
                with client, suppress(OSError), context.wrap_socket(client, server_side=True) as encrypted:
                    got.append(encrypted.recv(10))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        receipts = hand_over(make(f"https://localhost:{listener.getsockname()[1]}"))
        thread.join()

    assert kinds(receipts) == {NotSent}
    assert b"".join(got) == b""


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("reset at once", {Unknown}),
        ("reset before the last byte", {Unknown}),
        ("reset after the last byte", {Unknown}),
        ("swallow the reply", {Unknown}),
        ("half a head", {Unknown}),
        ("drip", {Unknown}),
    ],
)
def test_after_the_first_byte_a_missing_answer_is_doubt_and_nothing_is_sent_again(
    make: Make, network: FaultProxy, api: StandIn, fault: Fault, expected: set[type]
) -> None:
    network.fault = fault
    receipts = hand_over(make(network.url, IMPATIENT if fault in ("swallow the reply", "drip") else PATIENT))

    # A connection that is reset before we wrote is a connection that never was.
    assert kinds(receipts) == expected or (fault == "reset at once" and kinds(receipts) <= {Unknown, NotSent})
    assert len(api.ids()) == len(set(api.ids()))
    passed_on = fault not in ("reset at once", "reset before the last byte")
    eventually(lambda: len(api.ids()) == (3 if passed_on else 0))


def test_an_acceptance_whose_body_is_cut_off_is_an_acceptance(network: FaultProxy, api: StandIn) -> None:
    network.fault = "half a body"
    receipts = hand_over(_twilio(network.url))

    assert kinds(receipts) == {Accepted}
    assert [receipt.ref for receipt in receipts if isinstance(receipt, Accepted)] == [None] * 3
    assert len(api.ids()) == 3


def canned(status: int, body: bytes = b"<html><h1>Bad Gateway</h1></html>", *headers: str, cut: int = 0) -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status} X", "Content-Type: text/html", f"Content-Length: {len(body)}", *headers))
    reply = head.encode() + b"\r\n\r\n" + body
    return reply[: len(reply) - cut]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_whatever_is_no_plain_yes_or_no_is_doubt(make: Make, network: FaultProxy, status: int) -> None:
    network.canned = canned(status)

    assert kinds(hand_over(make(network.url))) == {Unknown}


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_redirect_is_doubt_and_is_not_followed(make: Make, network: FaultProxy, api: StandIn, status: int) -> None:
    paths = [f"{api.url}/v3/mail/send", f"{api.url}/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json"]
    for path in paths:
        network.canned = canned(status, b"", f"Location: {path}")
        assert kinds(hand_over(make(network.url))) == {Unknown}
    assert (api.calls, api.complaints) == ([], [])


def test_an_error_20500_of_twilio_is_doubt(network: FaultProxy) -> None:
    network.canned = canned(500, b'{"code": 20500, "message": "Internal error", "status": 500}')

    assert kinds(hand_over(_twilio(network.url))) == {Unknown}


def test_a_refusal_that_is_cut_off_is_doubt(make: Make, network: FaultProxy) -> None:
    network.canned = canned(400, b'{"errors": [], "code": 21211}', cut=5)

    assert kinds(hand_over(make(network.url, IMPATIENT))) == {Unknown}


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ((), 5, 5),
        (("Retry-After: 17",), 17, 17),
        (("Retry-After: 999999",), 3600, 3600),
        (("X-RateLimit-Reset: {soon}",), 1, 30),
        (("X-RateLimit-Reset: 99999999999",), 60, 60),
        (("X-RateLimit-Reset: 7",), 1, 1),  # long ago
        (("Retry-After: soon",), 5, 5),
        (("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT",), 1, 1),
    ],
)
def test_a_429_is_proof_and_says_how_long_to_rest(
    make: Make, network: FaultProxy, headers: tuple[str, ...], least: int, most: int
) -> None:
    lines = [header.format(soon=int(time.time()) + 30) for header in headers]
    network.canned = canned(429, b"<html>", *lines)
    receipts = hand_over(make(network.url))

    assert kinds(receipts) == {RetryAfter}
    for receipt in receipts:
        assert isinstance(receipt, RetryAfter)
        assert timedelta(seconds=least) <= receipt.wait <= timedelta(seconds=most)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_account_is_not_the_message_s_fault(make: Make, network: FaultProxy, status: int) -> None:
    network.canned = canned(status, b"<html>")
    receipts = hand_over(make(network.url))

    assert all(isinstance(r, Rejected) and r.scope == "account" and r.suppress is None for r in receipts)


def test_past_the_deadline_not_one_byte_is_written(make: Make, network: FaultProxy, api: StandIn) -> None:
    receipts = hand_over(make(network.url), seconds=0)

    assert kinds(receipts) == {NotSent}
    assert api.calls == []


def test_a_connection_that_comes_about_too_late_is_not_written_to(make: Make) -> None:
    """A listener whose queue is full: the connection is there, late, and the deadline was meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        provider, envelopes = make(f"http://127.0.0.1:{listener.getsockname()[1]}")
        moment = Moment(datetime.now(UTC), boot_seconds())
        try:
            receipts = provider.hand_over(envelopes, moment, moment.boot + 0.000_001)
        finally:
            provider.close()
        assert kinds(receipts) == {NotSent}
        listener.settimeout(0.2)
        try:
            client, _ = listener.accept()
        except TimeoutError:
            return
        with client:
            client.settimeout(1)
            with suppress(ConnectionResetError):
                assert client.recv(10) == b""


WRITER = """
import os, sys
from datetime import UTC, datetime
sys.path.insert(0, sys.argv[1])
from envelopes import make_mail
from dispatcher.providers.http import Http
from dispatcher.providers.protocol import Moment, boot_seconds
from dispatcher.providers.sendgrid import SendGrid
mail = make_mail(1, text="x" * 3_000_000)
SendGrid(Http(), api_key="k", url=sys.argv[2]).hand_over([mail], Moment(datetime.now(UTC), 0), boot_seconds() + 20)
"""


def test_of_a_killed_process_nothing_is_flushed_after_its_death() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(Path(__file__).parents[1]), url])
        client, _ = listener.accept()
        with client:
            assert client.recv(1) == b"P"
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            client.settimeout(10)
            with pytest.raises(ConnectionResetError):  # with an ordinary socket the rest of its buffer, and the end
                _read_to_the_end(client)


def _read_to_the_end(client: socket.socket) -> None:
    while client.recv(1_000_000):
        pass
