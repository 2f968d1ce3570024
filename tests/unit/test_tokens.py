"""Unsubscribe tokens: what goes in comes out, and nothing else opens."""

from __future__ import annotations

import hashlib
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import Signer

from dispatcher.definitions import NAME
from dispatcher.keys import KeyRing
from dispatcher.tokens import (
    BadToken,
    ClickedLink,
    ClickTokens,
    DataTokens,
    OptInTokens,
    PreferenceTokens,
    UnsubscribeTokens,
    WayHome,
    WayIn,
    WayOut,
    WayToData,
    click_url,
    opt_in_url,
    own_data_url,
    preferences_url,
    unsubscribe_url,
)

SECRET = b"s" * 32
RING = KeyRing([SECRET], b"h" * 32)
TOKENS = UnsubscribeTokens(RING)
TYPICAL = TOKENS.make(123_456, "email", "offers", 234_567)

ids = st.integers(min_value=0, max_value=2**63 - 1)
topics = st.from_regex(NAME, fullmatch=True)
channels = st.sampled_from(["email", "sms"])


@given(ids, channels, topics, ids)
def test_a_token_says_again_what_it_was_made_from(contact_id: int, channel: str, topic: str, address_id: int) -> None:
    token = TOKENS.make(contact_id, channel, topic, address_id)

    assert TOKENS.read(token) == WayOut(contact_id, channel, topic, address_id)


def test_a_token_is_short_enough_for_an_sms() -> None:
    assert len(TOKENS.make(2_000_000, "sms", "new-arrivals", 4_000_000)) < 55
    assert TYPICAL.isascii()


def test_the_link_leads_to_the_public_address() -> None:
    way_out = WayOut(123_456, "email", "offers", 234_567)

    assert unsubscribe_url("https://mail.shop.example", TOKENS, way_out) == f"https://mail.shop.example/u/{TYPICAL}"


@given(st.text(max_size=300))
def test_no_text_is_a_token(text: str) -> None:
    refused(text)


@given(st.binary(max_size=200))
def test_no_bytes_are_a_token(data: bytes) -> None:
    refused(data.decode("latin-1"))


@given(payload=st.binary(max_size=60))
def test_no_invented_payload_under_a_true_signature_gets_through_unless_it_is_one(payload: bytes) -> None:
    """Even our own signature over garbage gives BadToken or a sound WayOut, never another error."""
    from itsdangerous.encoding import base64_encode

    token = TOKENS._signer.sign(base64_encode(payload)).decode()
    try:
        found = TOKENS.read(token)
    except BadToken:
        return
    assert found.channel in ("email", "sms")


@given(position=st.integers(0, len(TYPICAL) - 1), bit=st.integers(0, 6))
def test_one_flipped_bit_spoils_it(position: int, bit: int) -> None:
    changed = bytearray(TYPICAL.encode())
    changed[position] ^= 1 << bit

    refused(changed.decode("ascii"))


def test_every_other_last_character_spoils_it() -> None:
    """Base64 leaves four bits unused in the last one; two spellings of one signature would be two tokens."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="
    for character in alphabet.replace(TYPICAL[-1], ""):
        refused(TYPICAL[:-1] + character)


@given(length=st.integers(0, len(TYPICAL) - 1))
def test_a_piece_of_a_token_is_none(length: int) -> None:
    refused(TYPICAL[:length])
    refused(TYPICAL[-length:] if length else "")


@pytest.mark.parametrize("extra", [" ", "\n", "=", ".", "A", "\0", "/", "%00", "é"])
def test_nothing_may_stand_before_or_after_it(extra: str) -> None:
    refused(TYPICAL + extra)
    refused(extra + TYPICAL)


@pytest.mark.parametrize("character", ["a", ".", "é", "\ud800", "\0"])
def test_a_megabyte_is_refused_at_once(character: str) -> None:
    began = time.perf_counter()
    refused(character * 1_000_000)

    assert time.perf_counter() - began < 0.1


def test_a_signature_made_for_another_purpose_does_not_open_it() -> None:
    payload = TYPICAL.partition(".")[0]
    for purpose, salt in (("confirmation", b"dispatcher/unsubscribe"), ("unsubscribe", b"dispatcher/preferences")):
        signer = Signer(
            RING.signing_keys(purpose),
            salt=salt,
            key_derivation="hmac",
            digest_method=hashlib.sha256,
            algorithm=TOKENS._signer.algorithm,
        )
        refused(signer.sign(payload).decode())


def test_tokens_of_an_older_secret_key_still_open() -> None:
    rotated = UnsubscribeTokens(KeyRing([os.urandom(32), SECRET], b"h" * 32))

    assert rotated.read(TYPICAL) == WayOut(123_456, "email", "offers", 234_567)
    assert rotated.make(123_456, "email", "offers", 234_567) != TYPICAL


def test_tokens_of_a_foreign_key_do_not_open() -> None:
    refused(UnsubscribeTokens(KeyRing([b"x" * 32], b"h" * 32)).make(1, "email", "offers", 1))


def test_every_refusal_reads_the_same() -> None:
    said = set()
    for wrong in ("", "x", TYPICAL[:-1], TYPICAL.swapcase(), "ü" * 40):
        with pytest.raises(BadToken) as raised:
            TOKENS.read(wrong)
        said.add(str(raised.value))

    assert len(said) == 1


def refused(token: str) -> None:
    with pytest.raises(BadToken):
        TOKENS.read(token)


WAY_IN = WayIn(123_456, "sms", "news", 234_567, 345_678)
OPT_INS = OptInTokens(RING)


@given(ids, channels, topics, ids, ids)
def test_a_confirmation_token_says_again_what_it_was_made_from(
    contact_id: int, channel: str, topic: str, address_id: int, request_id: int
) -> None:
    way_in = WayIn(contact_id, channel, topic, address_id, request_id)

    assert OPT_INS.read(OPT_INS.make(way_in)) == way_in


def test_each_kind_of_token_opens_its_own_door_only() -> None:
    with pytest.raises(BadToken):
        TOKENS.read(OPT_INS.make(WAY_IN))
    with pytest.raises(BadToken):
        OPT_INS.read(TYPICAL)


def test_no_change_of_one_character_leaves_a_confirmation_token_valid() -> None:
    token = OPT_INS.make(WAY_IN)
    for place, character in enumerate(token):
        with pytest.raises(BadToken):
            OPT_INS.read(token[:place] + ("A" if character != "A" else "B") + token[place + 1 :])


def test_a_confirmation_link_is_short_enough_for_an_sms() -> None:
    assert len(opt_in_url("https://s.example", OPT_INS, WAY_IN)) < 80


# --- clicks

CLICKS = ClickTokens(RING)
CLICK = CLICKS.make(ClickedLink(1_234_567, 3))


@given(ids, st.integers(min_value=0, max_value=999))
def test_a_click_token_says_again_which_link_it_is(tracked_id: int, number: int) -> None:
    clicked = ClickedLink(tracked_id, number)

    assert CLICKS.read(CLICKS.make(clicked)) == clicked


def test_a_click_token_costs_an_sms_twenty_characters() -> None:
    assert len(CLICK) <= 20
    assert click_url("https://go.example", CLICKS, ClickedLink(1_234_567, 3)) == f"https://go.example/c/{CLICK}"
    assert len(CLICKS.make(ClickedLink(2**63 - 1, 999))) <= 32


@given(st.text(max_size=60))
def test_no_text_is_a_click_token(text: str) -> None:
    with pytest.raises(BadToken):
        CLICKS.read(text)


def test_no_other_spelling_of_a_click_token_is_one() -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    others = {CLICK[:place] + letter + CLICK[place + 1 :] for place in range(len(CLICK)) for letter in letters} - {
        CLICK
    }
    for other in [*others, CLICK + "=", CLICK + "A", CLICK[:-1], f" {CLICK}", f"{CLICK}\n", CLICK + "?", ""]:
        with pytest.raises(BadToken):
            CLICKS.read(other)


def test_a_click_token_opens_nothing_else_and_nothing_else_opens_as_one() -> None:
    """ASVS 5.0 9.2.2: each purpose has keys of its own."""
    for tokens in (TOKENS, OptInTokens(RING)):
        with pytest.raises(BadToken):
            tokens.read(CLICK)
    with pytest.raises(BadToken):
        CLICKS.read(TYPICAL)


def test_click_tokens_of_an_older_key_still_open_and_the_newest_signs() -> None:
    newer = ClickTokens(KeyRing([b"n" * 32, SECRET], b"h" * 32))

    assert newer.read(CLICK) == ClickedLink(1_234_567, 3)
    assert newer.make(ClickedLink(1_234_567, 3)) != CLICK
    with pytest.raises(BadToken):
        ClickTokens(KeyRing([b"n" * 32], b"h" * 32)).read(CLICK)


# --- links about a person


@given(ids, channels, ids, ids)
def test_links_about_a_person_say_again_what_they_were_made_from(
    contact_id: int, channel: str, address_id: int, link_id: int
) -> None:
    home, data = WayHome(contact_id, channel, address_id), WayToData(contact_id, channel, address_id, link_id)

    assert PreferenceTokens(RING).read(PreferenceTokens(RING).make(home)) == home
    assert DataTokens(RING).read(DataTokens(RING).make(data)) == data


def test_a_token_opens_only_what_it_is_for() -> None:
    """Each purpose has keys and a salt of its own, and so no token of one is a token of another."""
    made = {
        UnsubscribeTokens: TYPICAL,
        OptInTokens: OptInTokens(RING).make(WayIn(1, "email", "offers", 2, 3)),
        PreferenceTokens: PreferenceTokens(RING).make(WayHome(1, "email", 2)),
        DataTokens: DataTokens(RING).make(WayToData(1, "email", 2, 3)),
    }
    for kind, token in made.items():
        for other in made:
            if other is not kind:
                with pytest.raises(BadToken):
                    other(RING).read(token)


def test_a_topic_does_not_fit_where_none_belongs() -> None:
    """Even under a true signature: what a token is not made from, it does not carry."""
    tokens = PreferenceTokens(RING)

    with pytest.raises(BadToken):
        tokens.read(tokens._sign("email", (1, 2), "offers"))


def test_links_about_a_person_lead_to_the_public_address() -> None:
    home, data = WayHome(1, "email", 2), WayToData(1, "email", 2, 3)

    assert preferences_url("https://m.example", PreferenceTokens(RING), home).startswith("https://m.example/p/")
    assert own_data_url("https://m.example", DataTokens(RING), data).startswith("https://m.example/m/")
    assert len(PreferenceTokens(RING).make(WayHome(2_000_000, "sms", 4_000_000))) < 45
