"""Doctor against real servers on this machine: the public address over TLS, providers' accounts, a received mail."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from certificates import write_certificate
from mail_server import mail_server
from name_server import name_server
from sqlalchemy import Engine
from web_server import serving

from dispatcher.asking import Unreachable, ask
from dispatcher.doctor import examine_mail
from dispatcher.doctor.broker import judge_broker, look_at_broker
from dispatcher.doctor.check import Check
from dispatcher.doctor.installation import judge_skew
from dispatcher.doctor.public_address import NO_TOKEN, look_at_public_address
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.providers.protocol import Trial
from dispatcher.providers.sendgrid.trying import try_account as try_sendgrid
from dispatcher.providers.smtp import Smtp
from dispatcher.providers.smtp.connection import server_at
from dispatcher.providers.twilio.trying import try_account as try_twilio

Said = tuple[int, Mapping[str, str], bytes]


class Door:
    """A small HTTP server: what it says by method and path, and what it was asked."""

    def __init__(self) -> None:
        self.says: dict[tuple[str, str], Said] = {}
        self.asked: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.url = ""
        self.date = ""

    def say(self, method: str, path: str, status: int, body: Any = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.says[method, path] = (status, headers, content)


@contextmanager
def door(certificate: tuple[str, str] | None = None) -> Iterator[Door]:
    made = Door()

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            made.asked.append((self.command, self.path, body, dict(self.headers)))
            status, headers, content = made.says.get((self.command, self.path), (405, {}, b""))
            self.send_response_only(status)
            self.send_header("Date", made.date or self.date_time_string())
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815 - named by http.server

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Whoever does not like our certificate hangs up: that is what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    made.url = f"{'https' if certificate else 'http'}://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A certificate for localhost that this process trusts."""
    files = write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", files[0])
    return files


def verdicts(checks: list[Check]) -> list[tuple[str, str]]:
    return [(check.name, check.verdict) for check in checks]


def proxied(made: Door) -> None:
    """Let it answer as dispatcher serve does."""
    made.say("GET", "/healthz", 200, {"alive": True})
    made.say("POST", f"/u/{NO_TOKEN}", 404, X_Request_Id="0123456789")


# --- the public address


def test_our_own_room_is_recognised(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    with serving(database, key_ring, tmp_path / "home") as web:
        found = list(look_at_public_address(f"http://127.0.0.1:{web.port}"))

    assert verdicts(found) == [("public address", "ok"), ("one-click", "ok")]


def test_over_tls_the_certificates_last_days_are_told(certificate: tuple[str, str]) -> None:
    with door(certificate) as made:
        proxied(made)
        found = list(look_at_public_address(made.url))

    assert verdicts(found) == [("public address", "look"), ("public address", "ok"), ("one-click", "ok")]
    assert "certificate good for 0 more days" in found[0].detail  # tests/certificates.py makes them for a day
    assert made.asked[1][:3] == ("POST", f"/u/{NO_TOKEN}", b"List-Unsubscribe=One-Click")


def test_a_certificate_that_nobody_trusts_is_wrong(tmp_path: Path) -> None:
    with door(write_certificate(tmp_path)) as made:
        proxied(made)
        found = list(look_at_public_address(made.url))

    assert verdicts(found) == [("public address", "wrong")]
    assert "the certificate is not good" in found[0].detail


def test_a_certificate_of_another_name_is_wrong(certificate: tuple[str, str]) -> None:
    with door(certificate) as made:
        found = list(look_at_public_address(made.url.replace("localhost", "127.0.0.1")))

    assert "the certificate is not good" in found[0].detail


def test_a_redirect_a_stranger_and_a_wall_are_told_apart(certificate: tuple[str, str]) -> None:
    with door(certificate) as made:
        proxied(made)
        made.say("GET", "/healthz", 301, Location="https://www.shop.test/healthz")
        assert "redirects to https://www.shop.test/healthz" in _wrong(made.url)

        made.say("GET", "/healthz", 200, b"<html>Shop</html>")
        assert "answered by something else" in _wrong(made.url)

        proxied(made)
        made.say("POST", f"/u/{NO_TOKEN}", 403, b"robots are not welcome")
        assert "answered with 403, not by dispatcher serve" in _wrong(made.url)
        made.say("POST", f"/u/{NO_TOKEN}", 404, b"no such page")  # somebody else's 404
        assert "not by dispatcher serve" in _wrong(made.url)


def _wrong(url: str) -> str:
    [found] = [check for check in look_at_public_address(url) if check.verdict == "wrong"]
    assert found.to_do
    return found.detail


@pytest.mark.parametrize(
    ("url", "says"), [("https://localhost:1", "no answer"), ("https://nowhere.invalid", "there is no host")]
)
def test_nobody_there_is_wrong(url: str, says: str) -> None:
    assert says in _wrong(url)


def test_a_server_that_says_nothing_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"no answer within 0\.2 s"):
            ask("GET", f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.2)

    assert time.monotonic() - began < 2


# --- providers

KEY = {"Authorization": "Bearer SG.secret"}
ACCOUNT, SERVICE = f"AC{'0' * 32}", f"MG{'0' * 32}"


@pytest.mark.parametrize(
    ("status", "body", "ok", "says"),
    [
        (200, {"scopes": ["mail.send", "alerts.read"]}, True, "has mail.send"),
        (200, {"scopes": ["alerts.read"]}, False, "lacks mail.send"),
        (200, b"<html>", None, "cannot be read"),
        (401, {"errors": []}, False, "refuses our credentials"),
        (403, {"errors": []}, None, "does not tell us"),
        (503, b"", None, "answers 503"),
    ],
)
def test_sendgrids_key_is_looked_at(status: int, body: Any, ok: bool | None, says: str) -> None:
    with door() as made:
        made.say("GET", "/v3/scopes", status, body)
        [found] = try_sendgrid(made.url, KEY, 5)

    assert (found.ok, says in found.detail, bool(found.to_do)) == (ok, True, status != 200 or ok is False)
    assert made.asked[0][3]["Authorization"] == KEY["Authorization"]
    assert "secret" not in str(found)


def test_twilios_account_and_service_are_looked_at() -> None:
    account, service = f"/2010-04-01/Accounts/{ACCOUNT}.json", f"/v1/Services/{SERVICE}"

    def tried(made: Door) -> list[tuple[bool | None, str]]:
        return [(one.ok, one.detail) for one in try_twilio(made.url, ACCOUNT, SERVICE, {}, 5)]

    with door() as made:
        made.say("GET", account, 401)
        assert [ok for ok, _ in tried(made)] == [False]
        made.say("GET", account, 200, {"status": "suspended"})
        assert tried(made) == [(False, "Twilio: the account is suspended")]
        made.say("GET", account, 200, {"status": "active"})
        made.say("GET", service, 404)
        assert [ok for ok, _ in tried(made)] == [True, False]
        made.say("GET", service, 200, {"sid": SERVICE})
        assert [ok for ok, _ in tried(made)] == [True, True]


def test_a_provider_whose_clock_differs_is_told() -> None:
    with door() as made:
        made.say("GET", "/v3/scopes", 200, {"scopes": ["mail.send"]})
        assert _ahead(made) == timedelta(0)
        made.date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
        ahead = _ahead(made)

    assert ahead is not None
    assert abs(ahead.total_seconds() - 90) <= 2
    found = judge_skew("sendgrid", ahead)
    assert (found.verdict, "behind" in found.detail) == ("wrong", False)


def _ahead(made: Door) -> timedelta | None:
    [found] = try_sendgrid(made.url, KEY, 5)
    return found.ahead


@pytest.mark.parametrize(
    ("ahead", "verdict"), [(0, "ok"), (1.9, "ok"), (-2, "look"), (59, "look"), (-60, "wrong"), (3600, "wrong")]
)
def test_clocks_may_differ_by_two_seconds(ahead: float, verdict: str) -> None:
    assert judge_skew("the database", timedelta(seconds=ahead)).verdict == verdict


def try_mail(url: str) -> Trial:
    [found] = Smtp(server_at(url)).try_account(5)
    return found


def test_a_mail_server_is_asked_for_our_login(tmp_path: Path, certificate: tuple[str, str]) -> None:
    with mail_server(tmp_path, "--tls", *certificate, "--login", "shop:right") as running:
        assert try_mail(f"smtp+starttls://shop:right@localhost:{running.port}").ok is True
        refused = try_mail(f"smtp+starttls://shop:wrong@localhost:{running.port}")
        assert (refused.ok, "refuses us at its login" in refused.detail) == (False, True)
        other_name = try_mail(f"smtp+starttls://shop:right@127.0.0.1:{running.port}")
        assert "the certificate is not good" in other_name.detail
        assert running.taken() == []
    assert try_mail("smtp://localhost:1").ok is None


# --- the broker


def test_the_broker_says_what_it_is(broker_url: str) -> None:
    [found] = look_at_broker(broker_url)

    assert found.verdict == "ok"
    assert found.detail.startswith(("Valkey", "Redis"))


@pytest.mark.parametrize(
    ("told", "verdicts_wanted"),
    [
        ({"redis_version": "7.2.4", "maxmemory_policy": "noeviction"}, ["ok"]),
        ({"redis_version": "7.2.4", "maxmemory_policy": "allkeys-lru"}, ["ok", "look"]),
        ({"redis_version": "5.0.1"}, ["look"]),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2", "aof_enabled": 1}, ["ok"]),
    ],
)
def test_a_broker_must_not_throw_tickets_away(told: dict[str, Any], verdicts_wanted: list[str]) -> None:
    assert [check.verdict for check in judge_broker(told)] == verdicts_wanted


# --- a received mail

HEADERS = {
    "Return-Path": "<bounce@mail.shop.test>",
    "Authentication-Results": "mx.receiver.test; spf=pass; dkim=pass header.d=shop.test; dmarc=pass",
    "DKIM-Signature": "v=1; a=rsa-sha256; d=shop.test; s=s1;\r\n h=From:To:Subject:Date:List-Unsubscribe:\r\n"
    " List-Unsubscribe-Post; b=abc",
    "From": "Shop <hello@shop.test>",
    "To": "ana@people.test",
    "Subject": "Hello",
    "Date": "Wed, 25 Nov 2026 16:00:00 +0000",
    "List-Unsubscribe": "<https://mail.shop.test/u/token>",
    "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
}
#: A public key of 2,048 bits.
GOOD_KEY = (
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAu1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0/IzW7yWR"
    "7QkrmBL7jTKEn5u+qKhbwKfBstIs+bMY2Zkp18gnTxKLxoS2tFczGkPLPgizskuemMghRniWaoLcyehkd3qqGElvW/VDL5AaWTg0nLVkjRo9z+40RQz"
    "uVaE8AkAFmxZzow3x+VJYKdjykkJ0iT9wCS0DRTXu269V264Vf/3jvredZiKRkgwlL9xNAwxXFg0x/XFw005UWVRIkdgcKWTjpBP2dPwVZ4WWC+9aGV"
    "d+Gyn1o0CLelf4rEjGoXbAAEgAqeGUxrcIlbjXfbcmwIDAQAB"
)


def saved(folder: Path, **changed: str | None) -> Path:
    """Save a mail that is right but for what is changed, by header; None leaves one out."""
    changes = {name.replace("_", "-"): value for name, value in changed.items()}
    headers = {name: changes.get(name, value) for name, value in (HEADERS | changes).items()}
    path = folder / "received.eml"
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    path.write_bytes("\r\n".join([*lines, "", "Hello"]).encode())
    return path


def said_of(path: Path, **options: Any) -> dict[str, str]:
    return {check.detail: check.verdict for check in examine_mail(path, **options)}


def test_a_mail_that_is_right_is_ok_all_over(tmp_path: Path) -> None:
    texts = {"s1._domainkey.shop.test": f"v=DKIM1; p={GOOD_KEY}", "_dmarc.shop.test": "v=DMARC1; p=reject"}
    with name_server(texts) as dns:
        found = said_of(saved(tmp_path), nameserver=dns.address)

    assert set(found.values()) == {"ok"}, found
    assert any("covers List-Unsubscribe and List-Unsubscribe-Post" in detail for detail in found)
    assert any("rsa key of 2,048 bits" in detail for detail in found)
    assert any("dkim pass" in detail for detail in found)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"DKIM_Signature": None}, "the mail is not signed"),
        ({"DKIM_Signature": "v=1; a=rsa-sha256; d=shop.test; s=s1; h=From:To:Subject:Date:List-Unsubscribe; b=x"},
         "no signature covers both"),
        ({"DKIM_Signature": HEADERS["DKIM-Signature"].replace("d=shop.test", "d=else.test")}, "does not speak for"),
        ({"DKIM_Signature": HEADERS["DKIM-Signature"].replace("h=From:", "h=")}, "does not cover From"),
        ({"DKIM_Signature": HEADERS["DKIM-Signature"].replace("sha256", "sha1")}, "by SHA-1"),
        ({"List_Unsubscribe_Post": None}, "1 List-Unsubscribe and 0 List-Unsubscribe-Post"),
        ({"List_Unsubscribe": "<mailto:stop@shop.test>"}, "no https link"),
        ({"List_Unsubscribe_Post": "One-Click"}, "is not List-Unsubscribe=One-Click"),
        ({"Authentication_Results": "mx.receiver.test; spf=pass; dkim=fail; dmarc=fail"}, "dkim fail, dmarc fail"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_mail_is_named(tmp_path: Path, changed: dict[str, str | None], says: str) -> None:
    found = said_of(saved(tmp_path, **changed), offline=True)

    assert [verdict for detail, verdict in found.items() if says in detail] == ["wrong"], found


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"Return_Path": "<b@em.sendgrid.test>"}, "DKIM alone must"),
        ({"Authentication_Results": None}, "does not show what its receiver found"),
        ({"List_Unsubscribe": None, "List_Unsubscribe_Post": None}, "it has no List-Unsubscribe"),
        ({"DKIM_Signature": HEADERS["DKIM-Signature"].replace("b=abc", "l=10; b=abc")}, "a part of the body only"),
        ({"List_Id": "<offers.shop.test>"}, "does not cover list-id"),
    ],
)
def test_what_somebody_should_know_of_a_mail_is_told(tmp_path: Path, changed: dict[str, str | None], says: str) -> None:
    found = said_of(saved(tmp_path, **changed), offline=True)

    assert [verdict for detail, verdict in found.items() if says in detail] == ["look"], found


def test_what_is_no_mail_is_refused(tmp_path: Path) -> None:
    (tmp_path / "picture.eml").write_bytes(b"\x89PNG")
    with pytest.raises(Refused, match="no mail with headers"):
        examine_mail(tmp_path / "picture.eml", offline=True)
    with pytest.raises(Refused, match="cannot be read"):
        examine_mail(tmp_path / "nothing.eml", offline=True)
