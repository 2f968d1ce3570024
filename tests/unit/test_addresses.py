"""Normal forms of e-mail addresses and phone numbers."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.addresses import BadAddress, normal_country, normal_email, normal_phone


def test_the_known_hard_cases_are_taken_or_refused_as_a_mailer_should(shared: Path) -> None:
    wrong = []
    for line in (shared / "data/addresses/isemail_tests.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        if case["category"] == "ISEMAIL_RFC5321":  # valid but unusual: a mailer may refuse them
            continue
        good = case["category"] in ("ISEMAIL_VALID_CATEGORY", "ISEMAIL_DNSWARN")
        if _is_email(case["address"]) != good:
            wrong.append((case["id"], case["category"], case["diagnosis"]))

    assert wrong == []


def _is_email(value: str) -> bool:
    try:
        normal_email(value)
    except BadAddress:
        return False
    return True


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Anna.Smith@Shop.EXAMPLE", "anna.smith@shop.example"),
        ("anna+news@gmail.example", "anna+news@gmail.example"),  # nothing is folded that the mailbox may tell apart
        ("a.n.n.a@gmail.com", "a.n.n.a@gmail.com"),
        ("anna@BÜCHER.example", "anna@xn--bcher-kva.example"),
        ("anna@xn--bcher-kva.example", "anna@xn--bcher-kva.example"),
        ("o'brien@test.test", "o'brien@test.test"),
    ],
)
def test_an_address_has_one_spelling(written: str, normal: str) -> None:
    assert normal_email(written) == normal


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "anna", "anna@", "@shop.example", "anna@@shop.example", '"anna smith"@shop.example',
        "anna@[127.0.0.1]", "anna@127.0.0.1", "anna(work)@shop.example", "anna @shop.example", "anna@shop..example",
        ".anna@shop.example", "anna@shop.example\n", "anna@shop.example\r\nBcc: b@shop.example",
        "anna\0@shop.example", "anna@-shop.example", "anna@gmail", "änna@shop.example", "a" * 65 + "@shop.example",
        "a@" + "b" * 64 + ".example", "a@" + ".".join(["b" * 60] * 5), "a" * 100_000 + "@shop.example",
        "<anna@shop.example>", "anna@shop.example,b@c.example", "anna\u200b@shop.example",
        "anna@shop.exam\u0000ple", "anna@shop．example\ud800",
    ],
)  # fmt: skip
def test_what_no_mailbox_can_be_is_refused_without_repeating_it(value: str) -> None:
    with pytest.raises(BadAddress) as refused:
        normal_email(value)

    assert len(value) < 6 or value not in str(refused.value)


@given(
    st.builds(
        "{}@{}.{}".format,
        st.text("abzAZ09.!#$%&'*+/=?^_`{|}~-\" @", min_size=1, max_size=70),
        st.text("abzAZ09.-_ ", min_size=1, max_size=70),
        st.sampled_from(["example", "com", "co.uk", "1", "x-", "-x"]),
    )
)
def test_the_quick_way_takes_only_what_the_library_takes(value: str) -> None:
    if not _is_email(value):
        return
    try:
        validate_email(value, check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:  # it also knows which punycode is not a word; a mailer need not
        assert "xn--" in value.lower(), (value, error)  # noqa: PT017


@given(st.emails())
def test_a_normal_form_is_its_own_normal_form(value: str) -> None:
    try:
        normal = normal_email(value)
    except BadAddress:
        return

    assert normal_email(normal) == normal
    assert normal == normal.lower()


def test_every_possible_number_becomes_e164(shared: Path) -> None:
    with (shared / "data/phones/libphonenumber_examples.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            expected = row["e164"] if row["is_possible"] == "True" else None
            written = [(row["input_international"], None), (row["input_international"], "GB"), (row["e164"], None)]
            if row["type"] != "INVALID_EXAMPLE":
                written.append((row["input_national"], row["region"]))
            for value, country in written:
                assert _phone(value, country) == expected, (value, country)


def _phone(value: str, country: str | None) -> str | None:
    try:
        return normal_phone(value, country)
    except BadAddress:
        return None


@pytest.mark.parametrize("value", ["07700 900123", "+44 7700 900123", "(07700) 900-123", "0044 7700 900123"])
def test_a_fictitious_british_mobile_is_possible(value: str) -> None:
    assert normal_phone(value, "GB") == "+447700900123"


@pytest.mark.parametrize(
    ("value", "country"),
    [
        ("07700 900123", None), ("07700 900123", "XX"), ("4.47701E+11", "GB"), ("+44 7700 900123 ext 5", "GB"),
        ("12", "GB"), ("", "GB"), ("not a number", "GB"), ("+" + "1" * 400, "US"), ("+447700900123;ext=1", None),
        ("+44\x007700900123", "GB"),
    ],
)  # fmt: skip
def test_what_no_text_message_reaches_is_refused(value: str, country: str | None) -> None:
    with pytest.raises(BadAddress):
        normal_phone(value, country)


def test_a_country_is_a_real_one() -> None:
    assert [normal_country(value) for value in ("gb", "UK", "RO", "AQ")] == ["GB", "GB", "RO", "AQ"]
    for value in ("XX", "GBR", "", "England"):
        with pytest.raises(ValueError, match="country"):
            normal_country(value)


def test_normal_forms_are_quick_enough_for_imports() -> None:
    begun = time.process_time()
    for number in range(2_000):
        normal_email(f"Anna.Smith{number}@gmail.example")
        normal_phone(f"07700 90{number:04}", "GB")

    assert (time.process_time() - begun) / 2_000 < 500e-6  # about 60 µs for both here
