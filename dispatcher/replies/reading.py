"""What does a text mean?  Words in, reading out; the words are data (`words.yaml`).

1. Folded: NFKC, without accents, emoji, invisible characters and punctuation, any capitals, blanks collapsed.
2. A word must be the whole message, in any language: who texts STOP stops, whatever language they read.
3. A longer text stops if a reasonable reader would take it for a request to stop; that is put up for review.
4. Stop wins over everything else in the same message.

Source: 47 CFR 64.1200(a)(10) for words and for "any reasonable means"; CTIA 5.1.3 for capitals and punctuation.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_LONGEST = 2_000  # an SMS of ten parts has 1,600 characters


class Reading(StrEnum):
    STOP = "stop"
    ASKS_TO_STOP = "asks_to_stop"  #: in free words
    START = "start"
    HELP = "help"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Words:
    """The words of all languages, folded."""

    stop: frozenset[str]
    stop_after_advertising: frozenset[str]
    start: frozenset[str]
    start_unless_asked: frozenset[str]
    help: frozenset[str]
    phrases: tuple[str, ...]


#: What the provider says it has read, where it answers by itself (`OptOutType`).
_PROVIDER_SAYS = {"STOP": Reading.STOP, "START": Reading.START, "HELP": Reading.HELP}


def read_text(
    text: str, provider_says: str | None = None, *, after_advertising: bool = False, opt_in_asked: bool = False
) -> Reading:
    """Return what a text means.

    `provider_says`: Twilio's OptOutType.  `after_advertising`: the last thing they got from us by SMS was marketing.
    `opt_in_asked`: we wait for their answer to an opt-in question, so YES is not START.
    """
    words = all_words()
    copies = _copies(text)
    said = _PROVIDER_SAYS.get((provider_says or "").upper())
    if said is Reading.STOP or copies & words.stop or _is_only(copies, words.stop):
        return Reading.STOP
    if _asks_to_stop(copies, words) or (after_advertising and copies & words.stop_after_advertising):
        return Reading.ASKS_TO_STOP
    if said is not None:
        return said
    if copies & words.help:
        return Reading.HELP
    if copies & words.start or (copies & words.start_unless_asked and not opt_in_asked):
        return Reading.START
    return Reading.OTHER


def _is_only(copies: frozenset[str], stops: frozenset[str]) -> bool:
    """Whether the message is one stop word again and again."""
    return any(len(tokens := set(copy.split())) == 1 and tokens <= stops for copy in copies)


def _asks_to_stop(copies: frozenset[str], words: Words) -> bool:
    keywords = words.stop | words.start | words.help
    for copy in copies:
        padded = f" {copy} "
        if any(f" {phrase} " in padded for phrase in words.phrases):
            return True
        tokens = copy.split()
        if len(tokens) > 1 and set(tokens) <= keywords and set(tokens) & words.stop:  # "stop help"
            return True
    return False


def _copies(text: str) -> frozenset[str]:
    """Return the folded text twice: with punctuation taken out, and with blanks in its place (opt-out, opt out)."""
    folded = fold(text)
    joined = "".join(c for c in folded if c.isalnum() or c.isspace())
    spaced = "".join(c if c.isalnum() else " " for c in folded)
    return frozenset({" ".join(joined.split()), " ".join(spaced.split())})


def fold(text: str) -> str:
    """Return the text in small letters without accents, marks and invisible characters."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text[:_LONGEST]).casefold())
    return "".join(c for c in plain if unicodedata.category(c) not in ("Mn", "Me", "Cf", "Cs", "Co", "Cn"))


@cache
def all_words() -> Words:
    """Return the words of every language."""
    languages: dict[str, Any] = yaml.safe_load((Path(__file__).with_name("words.yaml")).read_text(encoding="utf-8"))
    entries = languages["languages"].values()

    def of(list_: str) -> frozenset[str]:
        return frozenset(
            copy
            for entry in entries
            for source in entry.get(list_, ())
            for word in source["words"]
            for copy in _copies(word)
        )

    phrases = {" ".join(fold(p).replace("-", " ").split()) for entry in entries for p in entry["phrases"]}
    return Words(
        of("stop"), of("stop_after_advertising"), of("start"), of("start_unless_asked"), of("help"),
        tuple(sorted(phrases)),
    )  # fmt: skip
