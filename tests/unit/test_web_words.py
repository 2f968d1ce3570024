"""What pages show of a person, and in which language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.content.pages import page_languages
from dispatcher.masking import masked_address, masked_email, masked_phone
from dispatcher.web.languages import wanted_locale


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("jane@good.example", "j•••@g•••.example"),
        ("a@b.example", "a•••@b•••.example"),
        ("jane@mail.good.co.uk", "j•••@m•••.uk"),
        ("jane@localhost", "j•••@•••"),
        ("", "•••@•••"),
    ],
)
def test_an_email_shows_its_first_letters_only(address: str, shown: str) -> None:
    assert masked_email(address) == shown


def test_a_phone_shows_its_ends_only() -> None:
    assert masked_phone("+447700900123") == "+44••• 23"
    assert masked_phone("+123") == "•••"


@given(st.emails())
def test_two_addresses_with_the_same_letters_look_the_same(address: str) -> None:
    local, _, domain = address.rpartition("@")

    assert masked_address("email", f"{local}x@{domain}") == masked_address("email", address)


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        ("de", "de"),
        ("xx,fr-CA;q=0.2", "fr-CA"),
        ("fr;q=0.2,de;q=0.3", "de"),
        ("de;q=0", "the contact's"),
        ("", "the contact's"),
        ("*", "the contact's"),
        ("xx-YY", "the contact's"),
        ("a" * 100_000, "the contact's"),
    ],
)
def test_the_reader_comes_first_then_the_contact(header: str, locale: str) -> None:
    assert wanted_locale(header, "the contact's") == locale


@given(st.text(max_size=600))
def test_any_header_has_an_answer(header: str) -> None:
    assert wanted_locale(header, None) is None or page_languages()
