"""What goes to a phone, and what it costs: the parts of an SMS (3GPP TS 23.038)."""

from __future__ import annotations

from collections.abc import Iterable

_GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_PAIRS = frozenset("\f^{}\\[~]|€")  # an escape and a character: two units that stay together


def sms_segments(text: str) -> tuple[str, int]:
    """Return the encoding, `GSM-7` or `UCS-2`, and how many parts the text is sent and paid as."""
    if all(character in _GSM or character in _GSM_PAIRS for character in text):
        return "GSM-7", _parts((2 if character in _GSM_PAIRS else 1 for character in text), single=160, each=153)
    return "UCS-2", _parts((2 if ord(character) > 0xFFFF else 1 for character in text), single=70, each=67)


def _parts(widths: Iterable[int], *, single: int, each: int) -> int:
    """Return how many parts hold characters of these widths, none of them split."""
    sizes = list(widths)
    if sum(sizes) <= single:
        return 1 if sizes else 0
    parts, room = 1, each
    for size in sizes:
        if size > room:
            parts, room = parts + 1, each
        room -= size
    return parts
