"""Requests of SendGrid's Mail Send: as few as a slice of mails can be put into.

The body is sent once; what is each person's own travels as `substitutions`, which SendGrid puts in place of their keys
by plain find-and-replace.  No key can be mistaken for content, nor content for a key, in whatever order the keys are
replaced and however often: all keys are `-WORD00-`, where WORD is letters that no mail of the request has anywhere in
it.  While some keys are replaced and others are not, what lies between the remaining keys is a piece of a finished
mail, so it has no WORD in it; and no WORD lies across the border of a key, since that is a hyphen.  So WORD stands in
the text where a key is left, and nowhere else.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

import orjson

from dispatcher.mail import mail_host
from dispatcher.providers.protocol import Envelope
from dispatcher.providers.sendgrid.fragments import Part, parts_of

MOST_PEOPLE = 1_000  #: of a request; API reference, "Limitations"
MOST_BYTES = 30_000_000  #: of a request
MOST_SUBSTITUTION_BYTES = 10_000  #: keys and values of a person
_MOST_KEYS = 100  #: of a person; today's reference says 10,000, an older one said 100
MESSAGE_ID_ARGUMENT = "dispatcher_message_id"

#: Headers that SendGrid writes itself.
_THEIRS = frozenset(
    ("x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding",
     "to", "from", "subject", "reply-to", "cc", "bcc", "message-id")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Draft:
    """One request: who is in it, in the order of its personalizations, and its body."""

    envelopes: Sequence[Envelope]
    body: bytes


def drafts_of(envelopes: Sequence[Envelope]) -> list[Draft]:
    """Return the requests that carry these mails; each is in exactly one.  They must be writable as UTF-8.

    Mails of one language and class share a skeleton.  Whoever's own part is too large for substitutions gets a request
    alone.
    """
    groups: dict[tuple[str, bool, bool], list[Envelope]] = {}
    for envelope in envelopes:
        alike = envelope.content.locale, envelope.content.html is None, envelope.marketing
        groups.setdefault(alike, []).append(envelope)
    return [draft for group in groups.values() for draft in _drafts(group)]


def _drafts(group: Sequence[Envelope]) -> Iterator[Draft]:
    if len(group) > MOST_PEOPLE:
        yield from _drafts(group[:MOST_PEOPLE])
        yield from _drafts(group[MOST_PEOPLE:])
        return
    content, substitutions = _bodies(group)
    too_large = {place for place, own in enumerate(substitutions) if _size(own) > MOST_SUBSTITUTION_BYTES}
    if too_large:
        for smaller in _divided(group, too_large):
            yield from _drafts(smaller)
        return
    body = _encoded(group, content, substitutions)
    if len(body) > MOST_BYTES and len(group) > 1:
        yield from _drafts(group[: len(group) // 2])
        yield from _drafts(group[len(group) // 2 :])
    else:
        yield Draft(group, body)


def _divided(group: Sequence[Envelope], too_large: set[int]) -> Iterator[Sequence[Envelope]]:
    """Yield smaller groups, of mails more alike: with and without a section that some have and others have not.

    Where no section divides them well, those who are too large go alone, and the others stay together.
    """
    lines = [set((e.content.html or "").splitlines() + e.content.text.splitlines()) for e in group]
    counts = Counter(itertools.chain.from_iterable(lines))
    least = max(2, len(group) // 8)
    dividing = [line for line, count in counts.items() if least <= count <= len(group) - least]
    if dividing:
        section = max(dividing, key=lambda line: (len(line) * min(counts[line], len(group) - counts[line]), line))
        yield [envelope for envelope, own in zip(group, lines, strict=True) if section in own]
        yield [envelope for envelope, own in zip(group, lines, strict=True) if section not in own]
        return
    yield from ([envelope] for place, envelope in enumerate(group) if place in too_large)
    if len(too_large) < len(group):
        yield [envelope for place, envelope in enumerate(group) if place not in too_large]


def _bodies(group: Sequence[Envelope]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return `content` with keys in its holes, and each person's `substitutions`."""
    by_type = {"text/plain": [envelope.content.text for envelope in group]}
    if group[0].content.html:
        by_type["text/html"] = [envelope.content.html or "" for envelope in group]
    outside = (text for e in group for text in (e.content.subject, *(value for _, value in e.headers)))
    word = _word_in_none_of(itertools.chain(outside, *by_type.values()))
    keys: dict[tuple[str, ...], str] = {}  # a fragment that stands in several places has one key
    content = []
    for kind, texts in by_type.items():
        parts = parts_of(texts, most_holes=_MOST_KEYS // len(by_type))
        content.append({"type": kind, "value": "".join(_or_key(part, keys, word) for part in parts)})
    return content, [{key: column[place] for column, key in keys.items()} for place in range(len(group))]


def _or_key(part: Part, keys: dict[tuple[str, ...], str], word: str) -> str:
    return part if isinstance(part, str) else keys.setdefault(part, f"-{word}{len(keys):02}-")


def _word_in_none_of(texts: Iterable[str]) -> str:
    """Return a short word of letters that stands in none of the texts."""
    texts = list(texts)
    words = ("zq" + "".join(more) for length in itertools.count(1) for more in _letters(length))
    return next(word for word in words if not any(word in text for text in texts))


def _letters(length: int) -> Iterator[tuple[str, ...]]:
    return itertools.product(ascii_lowercase, repeat=length)


def _size(substitutions: dict[str, str]) -> int:
    return sum(len(key) + len(value.encode()) for key, value in substitutions.items())


def _encoded(
    group: Sequence[Envelope], content: list[dict[str, str]], substitutions: Sequence[dict[str, str]]
) -> bytes:
    first = group[0]
    own_headers = [{name: value for name, value in e.headers if name.lower() not in _THEIRS} for e in group]
    shared_headers = {
        name: value for name, value in own_headers[0].items() if all(own.get(name) == value for own in own_headers)
    }
    subjects = {envelope.content.subject for envelope in group}
    people = []
    for envelope, headers, own in zip(group, own_headers, substitutions, strict=True):
        person: dict[str, Any] = {"to": [{"email": _address(envelope.to)}]}
        if len(subjects) > 1:
            person["subject"] = envelope.content.subject
        person["headers"] = {name: value for name, value in headers.items() if name not in shared_headers}
        if own:
            person["substitutions"] = own
        person["custom_args"] = {MESSAGE_ID_ARGUMENT: str(envelope.message_id)}
        people.append({name: value for name, value in person.items() if value})
    request: dict[str, Any] = {
        "personalizations": people,
        "from": {"email": first.from_email} | ({"name": first.from_name} if first.from_name else {}),
        "subject": first.content.subject if len(subjects) == 1 else "",
        "content": content,
        "headers": shared_headers,
        "categories": [first.campaign] if first.campaign else [],
        "tracking_settings": {
            # The links are the shop's own, and ours: SendGrid's would count and lead elsewhere.
            "click_tracking": {"enable": False, "enable_text": False},
            "open_tracking": {"enable": False},
            # It would put a List-Unsubscribe of its own in place of ours.
            "subscription_tracking": {"enable": False},
        },
        # Unsubscribing and complaining stop marketing, there as here (ADR 32); bounces stop everything.
        "mail_settings": {}
        if first.marketing
        else {
            "bypass_unsubscribe_management": {"enable": True},
            "bypass_spam_management": {"enable": True},
        },
    }
    return orjson.dumps({name: value for name, value in request.items() if value})


def _address(address: str) -> str:
    """Return the address with its domain in ASCII."""
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{mail_host(address) if not domain.isascii() else domain}"
