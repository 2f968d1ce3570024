"""A mail that somebody received, looked at from its headers: what the signature covers, and what the receiver found.

The signature itself is not computed here: that needs the mail byte for byte as it arrived, and the receiver has done
it.  Its verdict stands in Authentication-Results, and what no receiver says is looked at: that both headers of the
one-click unsubscribe are signed, as RFC 8058 wants it, by a domain that speaks for the one in From.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from email.utils import parseaddr
from pathlib import Path

from dispatcher.doctor import dkim
from dispatcher.doctor.check import Check
from dispatcher.doctor.dmarc import Dmarc, read_dmarc
from dispatcher.doctor.names import Names
from dispatcher.errors import Refused
from dispatcher.mail import mail_host

_NAME = "received mail"
#: RFC 8058 4: a valid signature must cover both.
ONE_CLICK_HEADERS = ("list-unsubscribe", "list-unsubscribe-post")
_SHOULD_BE_SIGNED = ("from", "subject", "date", "to", "list-id", "feedback-id")
_MOST_BYTES = 20_000_000
_RESULT = re.compile(r"\b(spf|dkim|dmarc)=([a-z]+)")


def read_mail(path: Path) -> Message:
    """Return the mail in the file; Refused if there is none."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise Refused(f"{path} is too large for a mail")
        mail = message_from_bytes(path.read_bytes())
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror})") from None
    if not mail.get("from"):
        raise Refused(f"{path} is no mail with headers; save it as .eml (show original, download)")
    return mail


def look_at_mail(mail: Message, names: Names | None) -> Iterator[Check]:
    """Return what the mail shows; without `names` only what it says by itself."""
    domain = mail_host(parseaddr(str(mail["from"]))[1])
    policy = read_dmarc(names, domain) if names else Dmarc(domain, None, {}, domain)
    yield from _one_click(mail)
    yield from _signatures(mail, policy, names)
    yield from _return_path(mail, policy, names)
    yield from _verdict(mail)


def _one_click(mail: Message) -> Iterator[Check]:
    links, posts = mail.get_all("list-unsubscribe") or [], mail.get_all("list-unsubscribe-post") or []
    if not links and not posts:
        yield Check(
            _NAME,
            "look",
            "it has no List-Unsubscribe: right for an order confirmation, wrong for marketing",
            "look at a mail of a campaign: dispatcher template send NAME --to YOU",
        )
    elif len(links) != 1 or len(posts) != 1 or "<https://" not in str(links[0]):
        yield Check(
            _NAME,
            "wrong",
            f"it has {len(links)} List-Unsubscribe and {len(posts)} List-Unsubscribe-Post, or no https link in it",
            "something on the way changed them: one of each must arrive, as they were sent",
        )
    elif "".join(str(posts[0]).split()).lower() != "list-unsubscribe=one-click":
        yield Check(
            _NAME,
            "wrong",
            "its List-Unsubscribe-Post is not List-Unsubscribe=One-Click",
            "something on the way changed it: mail clients show no button then",
        )
    else:
        yield Check(_NAME, "ok", "List-Unsubscribe and List-Unsubscribe-Post arrived, one of each")


def _signatures(mail: Message, policy: Dmarc, names: Names | None) -> Iterator[Check]:
    signatures = [dkim.read_tags(str(value)) for value in mail.get_all("dkim-signature") or []]
    aligned = [tags for tags in signatures if _is_aligned(tags.get("d", ""), "adkim", policy, names)]
    if not signatures:
        yield Check("DKIM", "wrong", "the mail is not signed", "let your provider or mail server sign with DKIM")
    elif not aligned:
        others = ", ".join(sorted({tags.get("d", "?") for tags in signatures}))
        yield Check(
            "DKIM",
            "wrong",
            f"it is signed by {others}, which does not speak for {policy.domain}",
            f"have your provider sign as {policy.domain}: authenticate the domain there",
        )
    for tags in aligned:
        yield from _signature(mail, tags, names)
    if aligned and mail.get("list-unsubscribe") and not any(_covers(tags, ONE_CLICK_HEADERS) for tags in aligned):
        yield Check(
            "DKIM",
            "wrong",
            "no signature covers both List-Unsubscribe and List-Unsubscribe-Post (h=), so they count for nothing",
            "add both to the signed headers: OpenDKIM OverSignHeaders, Rspamd sign_headers, or ask your provider",
        )


def _signature(mail: Message, tags: dict[str, str], names: Names | None) -> Iterator[Check]:
    shown = f"signed by {tags.get('d')} with selector {tags.get('s')}"
    if mail.get("list-unsubscribe") and _covers(tags, ONE_CLICK_HEADERS):
        yield Check("DKIM", "ok", f"{shown}: covers List-Unsubscribe and List-Unsubscribe-Post")
    missing = [name for name in _SHOULD_BE_SIGNED if mail.get(name) and not _covers(tags, (name,))]
    if "from" in missing:
        yield Check("DKIM", "wrong", f"{shown}: does not cover From, so it counts for nothing", "sign From")
    elif missing:
        yield Check("DKIM", "look", f"{shown}: does not cover {', '.join(missing)}", "add them to the signed headers")
    if "l" in tags:
        yield Check(
            "DKIM", "look", f"{shown}: covers a part of the body only (l=), so anybody can add to it", "take l= out"
        )
    if tags.get("a", "").lower().endswith("sha1"):
        yield Check("DKIM", "wrong", f"{shown}: by SHA-1, which receivers ignore", "sign with rsa-sha256")
    if names is not None and tags.get("d") and tags.get("s"):
        yield from dkim.look_at_key(names, tags["d"].lower(), tags["s"])


def _covers(tags: dict[str, str], wanted: tuple[str, ...]) -> bool:
    return set(wanted) <= set(tags.get("h", "").lower().split(":"))


def _return_path(mail: Message, policy: Dmarc, names: Names | None) -> Iterator[Check]:
    address = parseaddr(str(mail.get("return-path", "")))[1]
    if not address:
        return
    domain = mail_host(address)
    if _is_aligned(domain, "aspf", policy, names):
        yield Check("SPF", "ok", f"the return path is at {domain}, which speaks for {policy.domain}")
    else:
        yield Check(
            "SPF",
            "look",
            f"the return path is at {domain}: SPF does not speak for {policy.domain}, DKIM alone must",
            "a return path (custom MAIL FROM) under your own domain makes both count",
        )


def _is_aligned(domain: str, mode: str, policy: Dmarc, names: Names | None) -> bool:
    """Without DNS: the same domain, or one inside the other."""
    domain = domain.lower()
    if names is None:
        return bool(domain) and (f".{domain}".endswith(f".{policy.domain}") or policy.domain.endswith(f".{domain}"))
    if not domain:
        return False
    return policy.is_aligned(domain, mode=mode, other_organisation=read_dmarc(names, domain).organisation)


def _verdict(mail: Message) -> Iterator[Check]:
    """What the receiver found: its own header is the topmost; any other may be forged."""
    headers = mail.get_all("authentication-results") or []
    said = dict(reversed(_RESULT.findall(str(headers[0]).lower()))) if headers else {}
    if not said:
        yield Check(
            _NAME,
            "look",
            "it does not show what its receiver found (Authentication-Results)",
            "take a mail out of the mailbox it arrived in, not out of the sent ones",
        )
        return
    shown = ", ".join(f"{kind} {said[kind]}" for kind in ("spf", "dkim", "dmarc") if kind in said)
    bad = [kind for kind in said if said[kind] not in ("pass", "bestguesspass")]
    if "dmarc" in bad or "dkim" in bad:
        yield Check(_NAME, "wrong", f"its receiver found: {shown}", "put in order what did not pass; see above")
    elif bad:
        yield Check(_NAME, "look", f"its receiver found: {shown}", "DKIM carries it; put SPF in order all the same")
    else:
        yield Check(_NAME, "ok", f"its receiver found: {shown}")
