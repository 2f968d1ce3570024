"""Mail over SMTP, against a real server in a process of its own."""

from __future__ import annotations

import email
import email.policy
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import write_certificate
from envelopes import make_mail
from house import free_port
from mail_server import Running, mail_server

from dispatcher.providers.protocol import (
    PAST_DEADLINE,
    Accepted,
    Envelope,
    Moment,
    NotSent,
    Receipt,
    Rejected,
    RetryAfter,
    Unknown,
    boot_seconds,
)
from dispatcher.providers.smtp import Smtp
from dispatcher.providers.smtp import connection as connections
from dispatcher.providers.smtp.connection import Connection, server_at
from dispatcher.providers.smtp.replies import Reply


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with mail_server(tmp_path_factory.mktemp("smtp")) as running:
        yield running


@pytest.fixture
def smtp(server: Running) -> Iterator[Smtp]:
    server.record.unlink(missing_ok=True)
    provider = Smtp(server_at(f"smtp://127.0.0.1:{server.port}"))
    yield provider
    provider.close()


def hand_over(provider: Smtp, envelopes: Sequence[Envelope], *, seconds: float = 20) -> list[Receipt]:
    moment = Moment(datetime.now(UTC), boot_seconds())
    return provider.hand_over(envelopes, moment, moment.boot + seconds)


def to(local: str, number: int = 1) -> Envelope:
    return make_mail(number, to=f"{local}@people.example")


def test_everybody_gets_their_own_mail_over_few_connections(smtp: Smtp, server: Running) -> None:
    envelopes = [make_mail(number) for number in range(30)]
    before = boot_seconds()
    receipts = hand_over(smtp, envelopes)

    taken = {mail["to"]: mail for mail in server.taken()}
    assert sorted(taken) == sorted(envelope.to for envelope in envelopes)
    assert len({tuple(mail["peer"]) for mail in taken.values()}) <= 4
    for envelope, receipt in zip(envelopes, receipts, strict=True):
        mail = taken[envelope.to]
        assert isinstance(receipt, Accepted)
        assert receipt.ref is not None
        assert re.fullmatch(r"Ok: queued as Q\d+", receipt.ref)
        assert before <= receipt.handed_over <= mail["at"]
        assert mail["from"] == "hello@small.example"
        message = email.message_from_bytes(mail["mail"], policy=email.policy.default)
        assert message["Subject"] == envelope.content.subject
        assert message["X-Dispatcher-Message-Id"] == str(envelope.message_id)
        body = message.get_body(("plain",))
        assert body is not None
        assert body.get_content().replace("\r\n", "\n") == envelope.content.text


def test_the_bytes_on_the_wire_are_as_mail_servers_want_them(smtp: Smtp, server: Running) -> None:
    [receipt] = hand_over(smtp, [make_mail(1, text="\n.\n..\n.first\r\nsecond\rthird\n")])

    assert isinstance(receipt, Accepted)
    [mail] = server.taken()
    wire = mail["mail"]
    assert b"\n" not in wire.replace(b"\r\n", b"")
    assert b"\r" not in wire.replace(b"\r\n", b"")
    assert wire.isascii()
    assert b"\r\n..first\r\n" not in wire  # doubled on the wire, single again behind it
    assert b"\r\n.first\r\n" in wire
    head = wire.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert f"List-Unsubscribe: <https://shop.example/u/{1:0120}>".encode() in head
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in head


def test_connections_are_used_again_and_renewed(server: Running, smtp: Smtp, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        hand_over(smtp, [make_mail(1)])
    assert len({tuple(mail["peer"]) for mail in server.taken()}) == 1

    monkeypatch.setattr("dispatcher.providers.smtp._MOST_MAILS", 4)
    for _ in range(3):
        hand_over(smtp, [make_mail(1)])
    assert len({tuple(mail["peer"]) for mail in server.taken()}) == 2


def account(r: Receipt) -> bool:
    return isinstance(r, Rejected) and r.scope == "account" and r.suppress is None


def address(suppress: str | None) -> Callable[[Receipt], bool]:
    return lambda r: isinstance(r, Rejected) and r.scope == "address" and r.suppress == suppress


def about(scope: str) -> Callable[[Receipt], bool]:
    return lambda r: isinstance(r, Rejected) and r.scope == scope and r.suppress is None


def again(r: Receipt) -> bool:
    return isinstance(r, NotSent) and r.wait > timedelta(0)


def rest(r: Receipt) -> bool:
    return isinstance(r, RetryAfter)


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ("rcpt-550-5.1.1", address("hard_bounce")),
        ("rcpt-550-5.1.2", address("hard_bounce")),
        ("rcpt-553-5.1.3", address("hard_bounce")),
        ("rcpt-550-5.1.10", address("hard_bounce")),
        ("rcpt-552-5.2.2", address(None)),
        ("rcpt-550", address(None)),
        ("rcpt-550-5.7.1", about("message")),
        ("rcpt-450-4.2.1", again),
        ("rcpt-451-4.7.1", again),
        ("rcpt-452-4.5.3", again),
        ("rcpt-421-4.3.2", rest),
        ("rcpt-530-5.7.0", account),
        ("rcpt-554-5.7.1-relay", account),  # "... said so to <rcpt-554-5.7.1-relay@...>"
        ("data-451-4.3.0", again),
        ("data-554-5.5.1", about("message")),
        ("data-421-4.3.2", rest),
        ("dot-451-4.3.0", again),
        ("dot-452-4.3.1", again),
        ("dot-421-4.3.2", rest),
        ("dot-552-5.3.4", about("template")),
        ("dot-554-5.6.0", about("template")),
        ("dot-554-5.7.1", about("message")),
        ("dot-550-5.1.1", address("hard_bounce")),
    ],
)
def test_a_refusal_is_read_at_each_stage_and_the_connection_goes_on(
    smtp: Smtp, server: Running, local: str, expected: Callable[[Receipt], bool]
) -> None:
    [receipt] = hand_over(smtp, [to(local)])
    [next_one] = hand_over(smtp, [make_mail(2)])

    assert expected(receipt), receipt
    assert "people.example" not in repr(receipt)
    assert isinstance(next_one, Accepted)
    assert [mail["to"] for mail in server.taken()] == ["p2@people.example"]


@pytest.mark.parametrize(
    ("sender", "expected"),
    [("mail-451-4.3.2", again), ("mail-501-5.1.7", account), ("mail-550-5.7.1", account), ("mail-421-4.3.2", rest)],
)
def test_a_sender_that_is_refused(smtp: Smtp, sender: str, expected: Callable[[Receipt], bool]) -> None:
    [receipt] = hand_over(smtp, [make_mail(1, from_email=f"{sender}@small.example")])

    assert expected(receipt), receipt


@pytest.mark.parametrize("local", ["drop-at-rcpt", "drop-before-dot"])
def test_a_server_that_leaves_before_the_final_dot_has_taken_nothing(smtp: Smtp, server: Running, local: str) -> None:
    large = "so much that the connection breaks under it " * 200_000
    [receipt] = hand_over(smtp, [make_mail(1, text=large, to=f"{local}@people.example")])

    assert isinstance(receipt, NotSent)
    assert server.taken() == []
    assert isinstance(hand_over(smtp, [make_mail(2)])[0], Accepted)


@pytest.mark.parametrize("local", ["drop-after-dot", "half-after-dot", "garble-after-dot"])
def test_a_server_that_leaves_after_the_final_dot_leaves_a_doubt(smtp: Smtp, server: Running, local: str) -> None:
    [receipt] = hand_over(smtp, [to(local)])

    assert isinstance(receipt, Unknown)
    assert receipt.handed_over <= boot_seconds()
    assert len(server.taken()) == 1
    assert isinstance(hand_over(smtp, [make_mail(2)])[0], Accepted)


def test_one_address_that_is_refused_does_not_harm_the_others(smtp: Smtp, server: Running) -> None:
    envelopes = [to("rcpt-550-5.1.1", n) if n % 5 == 0 else make_mail(n) for n in range(20)]
    receipts = hand_over(smtp, envelopes)

    assert [isinstance(receipt, Accepted) for receipt in receipts] == [n % 5 != 0 for n in range(20)]
    assert len(server.taken()) == 16


def test_an_address_that_smtp_cannot_write_is_refused_before_a_byte(smtp: Smtp, server: Running) -> None:
    receipts = hand_over(smtp, [make_mail(1, to="zoë@people.example"), make_mail(2, to="a\r\nDATA@people.example")])

    assert all(isinstance(receipt, Rejected) and receipt.handed_over is None for receipt in receipts)
    assert server.taken() == []


def test_past_the_deadline_no_byte_of_a_mail_is_written(smtp: Smtp, server: Running) -> None:
    assert isinstance(hand_over(smtp, [make_mail(1)], seconds=0)[0], NotSent)
    # This server thinks for longer than is left, and then would take it.
    assert isinstance(hand_over(smtp, [to("slow-data")], seconds=1)[0], NotSent)
    assert isinstance(hand_over(smtp, [make_mail(2)])[0], Accepted)
    assert [mail["to"] for mail in server.taken()] == ["p2@people.example"]


def test_the_deadline_is_looked_at_right_before_the_first_byte_of_the_mail(
    smtp: Smtp, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = threading.Event()
    command = Connection.command

    def slow(connection: Connection, line: str, **limits: float) -> Reply:
        reply = command(connection, line, **limits)
        if line == "DATA":
            late.set()
        return reply

    monkeypatch.setattr(Connection, "command", slow)
    monkeypatch.setattr("dispatcher.providers.smtp.boot_seconds", lambda: boot_seconds() + 100 * late.is_set())

    assert hand_over(smtp, [make_mail(1)]) == [NotSent(PAST_DEADLINE)]
    assert server.taken() == []


def test_a_server_that_is_not_there_has_taken_nothing() -> None:
    provider = Smtp(server_at(f"smtp://127.0.0.1:{free_port()}"))

    assert isinstance(hand_over(provider, [make_mail(1)])[0], NotSent)


# --- with what a script of bytes says, and no server would

GREETING = [b"220 hello\r\n", b"250 hello\r\n"]


@contextmanager
def scripted(*replies: bytes, after_dot: bytes = b"250 ok\r\n", then_mute: bool = False) -> Iterator[int]:
    """Yield the port of a server that gives these replies, one after each command, and the last after the final dot."""
    done = threading.Event()

    def talk(client: socket.socket) -> None:
        with client, client.makefile("rb") as lines, suppress(OSError):
            for reply in replies:
                client.sendall(reply)
                line = lines.readline()
            while line not in (b".\r\n", b""):
                line = lines.readline()
            client.sendall(after_dot)
            if then_mute:
                done.wait(10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            with suppress(OSError):
                talk(listener.accept()[0])

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        done.set()
        thread.join()


FINE = [*GREETING, b"250 mail\r\n", b"250 rcpt\r\n", b"354 go on\r\n"]


@pytest.mark.parametrize(
    "after_dot", [b"", b"250", b"250 no end of line", b"250-more\r\n", b"999 what\r\n", b"354 more\r\n", b"\r\n"]
)
def test_what_is_no_complete_reply_to_the_final_dot_leaves_a_doubt(after_dot: bytes) -> None:
    with scripted(*FINE, after_dot=after_dot) as port:
        [receipt] = hand_over(Smtp(server_at(f"smtp://127.0.0.1:{port}")), [make_mail(1)])

    assert isinstance(receipt, Unknown)


def test_what_breaks_after_the_acceptance_does_not_undo_it(
    smtp: Smtp, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quit_badly(connection: Connection) -> None:
        connection.drop()
        raise OSError("the network is gone")

    monkeypatch.setattr("dispatcher.providers.smtp._MOST_MAILS", 1)
    monkeypatch.setattr(Connection, "quit", quit_badly)

    assert isinstance(hand_over(smtp, [make_mail(1)])[0], Accepted)
    assert len(server.taken()) == 1


def test_a_server_that_says_nothing_after_the_final_dot_leaves_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "VERDICT_SECONDS", 0.3)
    with scripted(*FINE, after_dot=b"2", then_mute=True) as port:
        [receipt] = hand_over(Smtp(server_at(f"smtp://127.0.0.1:{port}")), [make_mail(1)])

    assert isinstance(receipt, Unknown)


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([b"554 go away\r\n"], account),
        ([b"421 too many\r\n"], rest),
        ([b"hello\r\n"], lambda r: isinstance(r, NotSent)),
        ([*GREETING, b"250 mail"], lambda r: isinstance(r, NotSent)),
        ([*GREETING, b"354 what\r\n"], lambda r: isinstance(r, NotSent)),
        ([*GREETING, b"250 mail\r\n", b"250 rcpt\r\n", b"250 data\r\n"], lambda r: isinstance(r, NotSent)),
    ],
)
def test_a_server_that_does_not_want_us(replies: list[bytes], expected: Callable[[Receipt], bool]) -> None:
    with scripted(*replies) as port:
        receipts = hand_over(Smtp(server_at(f"smtp://127.0.0.1:{port}")), [make_mail(1)], seconds=1)

    assert all(expected(receipt) for receipt in receipts), receipts


# --- encrypted, and as somebody


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.mark.parametrize(("scheme", "option"), [("smtp+starttls", "--tls"), ("smtps", "--smtps")])
def test_mail_is_encrypted_and_handed_in_as_somebody(
    tmp_path: Path, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch, scheme: str, option: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    with mail_server(tmp_path, option, *certificate, "--login", "shop:p@ss") as running:
        provider = Smtp(server_at(f"{scheme}://shop:p%40ss@localhost:{running.port}"))
        receipts = hand_over(provider, [make_mail(number) for number in range(3)])
        wrong = Smtp(server_at(f"{scheme}://shop:wrong@localhost:{running.port}"))
        refused = hand_over(wrong, [make_mail(number) for number in range(5, 8)])
        provider.close()

    assert all(isinstance(receipt, Accepted) for receipt in receipts), receipts
    assert [(mail["tls"], mail["login"]) for mail in running.taken()] == [(True, "shop")] * 3
    assert all(account(receipt) or isinstance(receipt, NotSent) for receipt in refused)
    assert any(account(receipt) for receipt in refused)
    assert "wrong" not in repr(refused) + repr(wrong._server)


def test_who_cannot_prove_who_they_are_gets_neither_mail_nor_password(
    tmp_path: Path, certificate: tuple[str, str]
) -> None:
    with mail_server(tmp_path, "--tls", *certificate) as running:
        [receipt] = hand_over(Smtp(server_at(f"smtp+starttls://u:p@localhost:{running.port}")), [make_mail(1)])

    assert isinstance(receipt, NotSent)
    assert "SSLCertVerificationError" in receipt.detail
    assert running.taken() == []


def test_a_server_without_starttls_is_not_spoken_to_in_clear(server: Running, smtp: Smtp) -> None:
    [receipt] = hand_over(Smtp(server_at(f"smtp+starttls://u:p@127.0.0.1:{server.port}")), [make_mail(1)])

    assert account(receipt)
    assert server.taken() == []


def test_a_password_is_in_no_representation() -> None:
    assert "hidden" not in repr(server_at("smtps://u:hidden@mail.example"))
    assert replace(server_at("smtps://u:hidden@mail.example"), port=1).password == "hidden"
