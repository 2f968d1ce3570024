"""What a text means, in every language, whatever its capitals, accents and signs."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.replies.reading import Reading, all_words, read_text

STOP, ASKS, START, HELP, OTHER = Reading.STOP, Reading.ASKS_TO_STOP, Reading.START, Reading.HELP, Reading.OTHER
#: Words of the reference that depend on what was said before.
IT_DEPENDS = {"no", "yes"}


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("STOP", STOP),
        (" stop ", STOP),
        ("Stop.", STOP),
        ("S.T.O.P", STOP),
        ("\uff33\uff34\uff2f\uff30", STOP),  # full-width letters
        ("st\u200bop", STOP),
        ("\U0001f6d1 STOP \U0001f6d1", STOP),
        ("stop stop STOP!!", STOP),
        ("Opt-Out", STOP),
        ("opt out", STOP),
        ("arrêt", STOP),
        ("ARRET", STOP),
        ("OPREȘTE", STOP),
        ("opreşte", STOP),  # with the cedilla that old keyboards have
        ("STOPP", STOP),
        ("SAIR", STOP),
        ("baja", STOP),
        ("START", START),
        ("unstop", START),
        ("alta", START),
        ("YES", START),
        ("HELP", HELP),
        ("Hilfe!", HELP),
        ("aide", HELP),
        ("stop help", ASKS),
        ("START STOP", ASKS),
        ("STOP PLEASE", ASKS),
        ("Please stop texting me, thanks", ASKS),
        ("don't text me again", ASKS),
        ("Ne m'envoyez plus de SMS svp", ASKS),
        ("Bitte keine Werbung mehr", ASKS),
        ("Não quero receber mais mensagens", ASKS),
        ("no quiero recibir más mensajes", ASKS),
        ("nu mai vreau mesaje", ASKS),
        ("Non mandatemi più messaggi", ASKS),
        ("Can you stop by tomorrow?", OTHER),
        ("the bus stop is closed", OTHER),
        ("when does the sale end", OTHER),
        ("can I cancel order 5?", OTHER),
        ("no", OTHER),
        ("thanks \U0001f44d\x00", OTHER),
        ("", OTHER),
        ("stopped working", OTHER),
    ],
)
def test_a_text_is_read(text: str, reading: Reading) -> None:
    assert read_text(text) is reading


def test_no_stops_in_answer_to_an_advertisement_only() -> None:
    assert read_text("No", after_advertising=True) is ASKS
    assert read_text("No") is OTHER


def test_yes_is_no_start_while_an_opt_in_is_open() -> None:
    assert read_text("Yes", opt_in_asked=True) is OTHER
    assert read_text("START", opt_in_asked=True) is START


@pytest.mark.parametrize(
    ("text", "says", "reading"),
    [
        ("remove me from this list", "STOP", STOP),
        ("whatever the shop made a word", "START", START),
        ("whatever", "HELP", HELP),
        ("stop", "HELP", STOP),
        ("please stop texting me", "START", ASKS),
        ("hello", "SOMETHING NEW", OTHER),
    ],
)
def test_what_the_provider_read_counts_and_stop_wins(text: str, says: str, reading: Reading) -> None:
    assert read_text(text, says) is reading


def test_every_word_of_the_reference_is_known(shared: Path) -> None:
    reference = yaml.safe_load((shared / "reference/opt-out-keywords.yaml").read_text(encoding="utf-8"))
    wanted = {"stop": STOP, "start": START, "help": HELP}
    checked = 0
    for language, lists in reference["languages"].items():
        for name, reading in wanted.items():
            for entry in lists.get(name, ()):
                if entry["word"] in IT_DEPENDS:
                    continue
                for written in (entry["word"], entry["word"].upper(), f"  {entry['word'].title()}!! "):
                    assert read_text(written) is reading, (language, written)
                    checked += 1
    assert checked > 200


def test_the_providers_composed_texts_are_read_right(shared: Path) -> None:
    composed = json.loads((shared / "data/webhooks/twilio-forms-composed.json").read_text(encoding="utf-8"))
    expected = {
        "stop": STOP, "stop lower with space": STOP, "stop punctuation": STOP, "stopall": STOP, "unsubscribe": STOP,
        "conversational, not an opt-out": OTHER, "help": HELP, "start": START, "unstop": START,
        "yes (double opt-in reply)": START, "custom opt-out keyword, provider hint only": STOP, "revoke": STOP,
        "optout": STOP, "german stop": STOP, "french arret": STOP, "empty body": OTHER, "emoji and NUL": OTHER,
        "mms": OTHER,
    }  # fmt: skip
    read = {
        case["case"]: read_text(dict(case["params"])["Body"], dict(case["params"]).get("OptOutType"))
        for case in composed["forms"]
        if case["kind"] == "inbound"
    }
    assert read == expected


@given(st.text(max_size=300))
def test_any_text_has_a_reading_and_another_form_of_it_the_same(text: str) -> None:
    assert read_text(text) in Reading
    assert read_text(unicodedata.normalize("NFC", text)) is read_text(unicodedata.normalize("NFD", text))


@given(
    st.sampled_from(sorted(all_words().stop)), st.sampled_from(["", " ", "!", "...", "\u200d", "\ufe0f", " \U0001f620"])
)
def test_signs_around_a_word_do_not_matter(word: str, sign: str) -> None:
    assert read_text(f"{sign}{word.upper()}{sign}") is STOP


def test_no_word_is_in_two_lists() -> None:
    words = all_words()

    assert not words.stop & (words.start | words.help | words.start_unless_asked | words.stop_after_advertising)
    assert not words.start & words.help
