"""What goes to a phone, and what it costs: the parts of an SMS (3GPP TS 23.038)."""

from __future__ import annotations

import re
from collections.abc import Iterable

_GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_PAIRS = frozenset("\f^{}\\[~]|€")  # an escape and a character: two units that stay together


_SAYS_HOW = re.compile(
    r"\b(?:stopp?|unsubscribe|opt[ -]?out|abmelden|abbestellen|arr[eê]t(?:er)?|d[ée]sabonne\w*|sair|cancelar|"
    r"dezabon\w*|baja|cancella\w*)\b",
    re.IGNORECASE,
)
# In GSM-7, so that no text needs twice the parts because of it.  STOP is what every gateway understands.
_WAY_OUT = {
    "en": "Reply STOP to opt out",
    "de": "Abmelden: STOP antworten",
    "es": "Responde STOP para no recibir nada",
    "fr": "Répondez STOP pour ne plus rien recevoir",
    "it": "Rispondi STOP per non ricevere altro",
    "pt": "Responda STOP para sair",
    "ro": "Raspunde STOP pentru dezabonare",
}


def with_way_out(text: str, language: str) -> str:
    """Return a marketing text that says in words how to end it, by an answer if it does not say so itself.

    A link alone does not say what it is for.
    """
    if _SAYS_HOW.search(text):
        return text
    return f"{text}\n{_WAY_OUT.get(language.partition('-')[0], _WAY_OUT['en'])}"


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
