"""The public address as a stranger sees it: over TLS, without a detour, and with somebody at the one-click path."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import orjson

from dispatcher.asking import Answered, Unreachable, ask
from dispatcher.doctor.check import Check

_NAME = "public address"
_SECONDS = 6.0
#: Renewed by then, where it is renewed by itself.
_CERTIFICATE_ENDS_SOON = timedelta(days=14)
#: No token: it opens nothing, and is answered as every wrong one.
NO_TOKEN = "doctor-looks-whether-posts-arrive"  # noqa: S105
#: What mail clients post (RFC 8058 3.2).
_ONE_CLICK = b"List-Unsubscribe=One-Click"


def look_at_public_address(public_url: str) -> Iterator[Check]:
    """Ask PUBLIC_URL for /healthz, and post to the one-click path what a mail client would."""
    try:
        alive = ask("GET", f"{public_url}/healthz", seconds=_SECONDS)
    except Unreachable as error:
        yield Check(
            _NAME,
            "wrong",
            f"{public_url} cannot be reached from here: {error}",
            "links in mails lead there: start dispatcher serve behind it, or correct DISPATCHER_PUBLIC_URL",
        )
        return
    yield from _certificate(public_url, alive)
    yield from _health(public_url, alive)
    yield from _one_click(public_url)


def _certificate(public_url: str, alive: Answered) -> Iterator[Check]:
    if alive.certificate_ends_at is None:
        return
    left = alive.certificate_ends_at - datetime.now(UTC)
    shown = f"{public_url}: certificate good for {left.days} more days, until {alive.certificate_ends_at:%Y-%m-%d}"
    if left < _CERTIFICATE_ENDS_SOON:
        yield Check(_NAME, "look", shown, "renew it: with the day it ends no link works any more")
    else:
        yield Check(_NAME, "ok", shown)


def _health(public_url: str, alive: Answered) -> Iterator[Check]:
    if 300 <= alive.status < 400:
        yield Check(
            _NAME,
            "wrong",
            f"{public_url} redirects to {_shortened(alive.headers.get('location', '?'))}",
            "set DISPATCHER_PUBLIC_URL to where it ends: mail clients do not follow a redirect of their POST",
        )
    elif alive.status != 200 or not _is_ours(alive):
        yield Check(
            _NAME,
            "wrong",
            f"{public_url}/healthz is answered by something else ({alive.status})",
            "pass everything under it on to dispatcher serve",
        )
    else:
        yield Check(_NAME, "ok", f"{public_url} leads to dispatcher serve")


def _one_click(public_url: str) -> Iterator[Check]:
    try:
        said = ask(
            "POST",
            f"{public_url}/u/{NO_TOKEN}",
            seconds=_SECONDS,
            body=_ONE_CLICK,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
    except Unreachable as error:
        detail = f"a POST to {public_url}/u/ has no answer: {error}"
    else:
        if said.status == 404 and "x-request-id" in said.headers:
            yield Check("one-click", "ok", "a POST to /u/ arrives; a link that is none is answered with 404")
            return
        detail = f"a POST to {public_url}/u/ is answered with {said.status}, not by dispatcher serve"
    yield Check(
        "one-click",
        "wrong",
        detail,
        "let GET, HEAD and POST under /u/ through the proxy: no cookie, login, redirect or filter by user agent",
    )


def _is_ours(alive: Answered) -> bool:
    try:
        return bool(orjson.loads(alive.body) == {"alive": True})
    except orjson.JSONDecodeError:
        return False


def _shortened(text: str) -> str:
    printable = "".join(character for character in text if character.isprintable())
    return printable if len(printable) <= 80 else f"{printable[:77]}..."
