"""The tokens of links: who, channel, topic and address row, signed, each for one purpose.

They go into SMS too, so they are short: numbers as varints, a signature of 128 bits, some 45 characters in all; that of
a click has less to protect, and some 20.  They carry no address.  That of an unsubscribe link never expires: one in a
mail of three years ago must still work.  That of an opt-in confirmation names its request too, whose age and fate
decide (`opt_in`); that of a data link its row (`preferences.data_links`).  Those of the preference centre and of data
links are about a person, so they name no topic.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from itsdangerous import Signer
from itsdangerous.encoding import base64_decode, base64_encode
from itsdangerous.exc import BadData
from itsdangerous.signer import SigningAlgorithm

from dispatcher.definitions import NAME
from dispatcher.errors import DispatcherError
from dispatcher.keys import KeyRing

#: The first byte of a token.  Never renumber: tokens live as long as the mails they are in.
_CHANNEL_CODES = {"email": 1, "sms": 2}
_CHANNELS = {code: channel for channel, code in _CHANNEL_CODES.items()}

_SIGNATURE_BYTES = 16
#: Payload, a dot, 22 characters of signature; the longest topic and ids fit, and anything longer is refused unread.
_FORM = re.compile(r"[A-Za-z0-9_-]{4,145}\.[A-Za-z0-9_-]{22}")
_LARGEST_ID = 2**63 - 1


class BadToken(DispatcherError):  # noqa: N818 - named for what it says, like the rest of its family
    """Not a token of ours; it does not say why, to nobody."""

    def __init__(self) -> None:
        super().__init__("this link is not valid")


@dataclass(frozen=True, slots=True)
class WayOut:
    """What one link lets its reader leave: a topic on a channel, and the address row the message went to."""

    contact_id: int
    channel: str
    topic: str
    address_id: int


@dataclass(frozen=True, slots=True)
class WayIn:
    """What one link lets its reader confirm: the request for a topic on a channel, and the address row it was for."""

    contact_id: int
    channel: str
    topic: str
    address_id: int
    request_id: int  #: of the piece of evidence that is the request


@dataclass(frozen=True, slots=True)
class ClickedLink:
    """Which link was clicked: its number in a message, and the message's in `tracked_message`."""

    tracked_id: int
    number: int


@dataclass(frozen=True, slots=True)
class WayHome:
    """Whose preferences one link opens, and the address row that it was sent to: the only one it proves anything of."""

    contact_id: int
    channel: str
    address_id: int


@dataclass(frozen=True, slots=True)
class WayToData:
    """Whose data one link opens, once; the address row it was sent to, and the row that knows its age and use."""

    contact_id: int
    channel: str
    address_id: int
    link_id: int


class _ShortHmac(SigningAlgorithm):
    """HMAC-SHA-256 cut to its first half, as RFC 2104 allows: 128 bits are beyond guessing."""

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        return hmac.digest(key, value, "sha256")[:_SIGNATURE_BYTES]


class _Tokens:
    """Signs and opens payloads for one purpose, with keys and a salt of its own; safe to share between threads."""

    purpose: str
    has_topic = True

    def __init__(self, key_ring: KeyRing) -> None:
        self._signer = Signer(
            key_ring.signing_keys(self.purpose),
            salt=f"dispatcher/{self.purpose}".encode(),
            key_derivation="hmac",
            digest_method=hashlib.sha256,
            algorithm=_ShortHmac(),
        )

    def _sign(self, channel: str, numbers: Sequence[int], topic: str = "") -> str:
        payload = bytes((_CHANNEL_CODES[channel],)) + b"".join(map(_varint, numbers)) + topic.encode()
        return self._signer.sign(base64_encode(payload)).decode("ascii")

    def _open(self, token: str, *, numbers: int) -> tuple[str, list[int], str]:
        """Return channel, numbers and topic; BadToken, always the same, for anything else."""
        if not _FORM.fullmatch(token) or not _is_canonical(token):
            raise BadToken
        try:
            return _parse(base64_decode(self._signer.unsign(token)), numbers, has_topic=self.has_topic)
        except (BadData, ValueError, IndexError, KeyError) as error:
            raise BadToken from error


class UnsubscribeTokens(_Tokens):
    """The tokens of unsubscribe links."""

    purpose = "unsubscribe"

    def make(self, contact_id: int, channel: str, topic: str, address_id: int) -> str:
        """Return the token; the same arguments give the same token until the secret key changes."""
        return self._sign(channel, (contact_id, address_id), topic)

    def read(self, token: str) -> WayOut:
        """Return what `token` was made from; BadToken, always the same, for anything else."""
        channel, (contact_id, address_id), topic = self._open(token, numbers=2)
        return WayOut(contact_id, channel, topic, address_id)


class OptInTokens(_Tokens):
    """The tokens of opt-in confirmations."""

    purpose = "opt-in"

    def make(self, way_in: WayIn) -> str:
        """Return the token; the same request gives the same token until the secret key changes."""
        return self._sign(way_in.channel, (way_in.contact_id, way_in.address_id, way_in.request_id), way_in.topic)

    def read(self, token: str) -> WayIn:
        """Return what `token` was made from; BadToken, always the same, for anything else."""
        channel, (contact_id, address_id, request_id), topic = self._open(token, numbers=3)
        return WayIn(contact_id, channel, topic, address_id, request_id)


_CLICK_FORM = re.compile(r"[A-Za-z0-9_-]{16,32}")
#: 80 bits (the least RFC 2104 recommends): only we can check a guess, and a right one opens a page of the shop.
_CLICK_SIGNATURE_BYTES = 10


class ClickTokens:
    """The tokens of links whose clicks are counted: as short as is safe, since an SMS pays for every character.

    A message by a number of our own, the link's number in it, a signature; nothing of where it leads.
    """

    purpose = "click"

    def __init__(self, key_ring: KeyRing) -> None:
        self._keys = key_ring.signing_keys(self.purpose)[::-1]  # the newest signs

    def make(self, clicked: ClickedLink) -> str:
        """Return the token; the same link gives the same token until the secret key changes."""
        payload = _varint(clicked.tracked_id) + _varint(clicked.number)
        return base64_encode(payload + _click_signature(self._keys[0], payload)).decode("ascii")

    def read(self, token: str) -> ClickedLink:
        """Return what `token` was made from; BadToken, always the same, for anything else."""
        if not _CLICK_FORM.fullmatch(token):
            raise BadToken
        try:
            signed = base64_decode(token)
            payload, signature = signed[:-_CLICK_SIGNATURE_BYTES], signed[-_CLICK_SIGNATURE_BYTES:]
            known = [hmac.compare_digest(_click_signature(key, payload), signature) for key in self._keys]
            if not any(known) or base64_encode(signed).decode("ascii") != token:
                raise BadToken
            tracked_id, position = _read_varint(payload, 0)
            number, position = _read_varint(payload, position)
        except (BadData, ValueError, IndexError) as error:
            raise BadToken from error
        if position != len(payload):
            raise BadToken
        return ClickedLink(tracked_id, number)


def _click_signature(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, payload, "sha256")[:_CLICK_SIGNATURE_BYTES]


def click_url(public_url: str, tokens: ClickTokens, clicked: ClickedLink) -> str:
    """Return the link that stands in the message instead of the destination."""
    return f"{public_url}/c/{tokens.make(clicked)}"


class PreferenceTokens(_Tokens):
    """The tokens of links to the preference centre."""

    purpose = "preferences"
    has_topic = False

    def make(self, way_home: WayHome) -> str:
        """Return the token; the same person at the same address has the same until the secret key changes."""
        return self._sign(way_home.channel, (way_home.contact_id, way_home.address_id))

    def read(self, token: str) -> WayHome:
        """Return what `token` was made from; BadToken, always the same, for anything else."""
        channel, (contact_id, address_id), _ = self._open(token, numbers=2)
        return WayHome(contact_id, channel, address_id)


class DataTokens(_Tokens):
    """The tokens of links to what we know of somebody."""

    purpose = "own-data"
    has_topic = False

    def make(self, way: WayToData) -> str:
        """Return the token; the same link has the same until the secret key changes."""
        return self._sign(way.channel, (way.contact_id, way.address_id, way.link_id))

    def read(self, token: str) -> WayToData:
        """Return what `token` was made from; BadToken, always the same, for anything else."""
        channel, (contact_id, address_id, link_id), _ = self._open(token, numbers=3)
        return WayToData(contact_id, channel, address_id, link_id)


def unsubscribe_url(public_url: str, tokens: UnsubscribeTokens, way_out: WayOut) -> str:
    """Return the link for the mail's headers, its body, or the SMS."""
    token = tokens.make(way_out.contact_id, way_out.channel, way_out.topic, way_out.address_id)
    return f"{public_url}/u/{token}"


def opt_in_url(public_url: str, tokens: OptInTokens, way_in: WayIn) -> str:
    """Return the link of a confirmation message."""
    return f"{public_url}/d/{tokens.make(way_in)}"


def preferences_url(public_url: str, tokens: PreferenceTokens, way_home: WayHome) -> str:
    """Return the link to somebody's preference centre."""
    return f"{public_url}/p/{tokens.make(way_home)}"


def own_data_url(public_url: str, tokens: DataTokens, way: WayToData) -> str:
    """Return the link to what we know of somebody."""
    return f"{public_url}/m/{tokens.make(way)}"


def _is_canonical(token: str) -> bool:
    """Whether the signature is written the one way we write it: the unused last bits of base64 must be zero."""
    signature = token.rpartition(".")[2].encode("ascii")
    return base64_encode(base64_decode(signature)) == signature


def _parse(payload: bytes, count: int, *, has_topic: bool) -> tuple[str, list[int], str]:
    channel, position, numbers = _CHANNELS[payload[0]], 1, []
    for _ in range(count):
        number, position = _read_varint(payload, position)
        numbers.append(number)
    topic = payload[position:].decode("utf-8")
    if not re.fullmatch(NAME if has_topic else "", topic):
        raise ValueError(topic)
    return channel, numbers, topic


def _varint(number: int) -> bytes:
    """Return `number` seven bits a byte, lowest first; the top bit says that more follow."""
    if not 0 <= number <= _LARGEST_ID:
        raise ValueError(f"{number} is not a row's id")
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number that begins at `position`, and the position after it."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte <= 0x7F:
            break
    if number > _LARGEST_ID:
        raise ValueError(f"{number} is not a row's id")
    return number, position
