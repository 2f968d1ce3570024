"""A SendGrid request, expanded the way SendGrid documents, is each mail byte for byte as it was rendered alone."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standins import mails_in

from dispatcher.clicks import LinkWriter
from dispatcher.content import Content, Template, message_context
from dispatcher.content.folder import read_template_folder
from dispatcher.definitions import ShopIdentity
from dispatcher.destinations import AllowedHosts
from dispatcher.keys import KeyRing
from dispatcher.mail import headers_for
from dispatcher.providers.protocol import Envelope
from dispatcher.providers.sendgrid.drafts import MOST_SUBSTITUTION_BYTES, Draft, drafts_of
from dispatcher.providers.sendgrid.fragments import parts_of
from dispatcher.tokens import ClickTokens

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted(ROOT.glob("examples/workspace/templates/email/*/"))
SHOP = ShopIdentity(name="The Gift Shop", from_email="hello@giftshop.example", postal_address="12 Cloth Fair, London")
MESSAGE = UUID("01930000-0000-7000-8000-000000000000")

# Names that look like keys, like other engines' tags, like halves of something; in several scripts.
NAMES = [
    "",
    "Zoë",
    "-zqa00-",
    "-zqa0",
    "0-",
    "zqa",
    "{{first}}",
    "%name%",
    "<b>",
    "O'Hara & Söhne",
    "张伟",
    "😀",
    "-",
    "--",
]


def check(envelopes: Sequence[Envelope], drafts: Sequence[Draft]) -> None:
    """Everybody is in exactly one request, and gets their own mail from it."""
    assert sorted(e.message_id for d in drafts for e in d.envelopes) == sorted(e.message_id for e in envelopes)
    for draft, backwards in itertools.product(drafts, (False, True)):
        for envelope, (to, subject, texts, headers) in zip(
            draft.envelopes, mails_in(draft.body, backwards=backwards), strict=True
        ):
            content = envelope.content
            assert (to, subject) == (envelope.to, content.subject)
            assert texts == {"text/plain": content.text} | ({"text/html": content.html} if content.html else {})
            assert headers == {name: value for name, value in envelope.headers if name != "Message-ID"}
    for person in (person for draft in drafts for person in orjson.loads(draft.body)["personalizations"]):
        own = person.get("substitutions", {})
        assert sum(len(key) + len(value.encode()) for key, value in own.items()) <= MOST_SUBSTITUTION_BYTES
        assert len(own) <= 100


def make_envelope(number: int, content: Content) -> Envelope:
    message_id = UUID(int=MESSAGE.int + number)
    link = f"https://shop.example/u/{number:040}"
    headers = headers_for(
        message_id=message_id, shop=SHOP, class_="marketing", campaign="test", topic="offers", unsubscribe_url=link
    )
    return Envelope(
        message_id, None, f"p{number}", f"p{number}@people.example", content, tuple(headers),
        from_name=SHOP.name, from_email=SHOP.from_email, campaign="test", marketing=True,
    )  # fmt: skip


def rendered(template: Template, number: int, *, name: str = "", data: Any = None, locale: str = "en") -> Envelope:
    context = message_context(
        personal={"first_name": name, "last_name": "Example", "email": f"p{number}@people.example"},
        contact={"locale": locale, "attributes": {"points": number}},
        shop=SHOP,
        topic_title="Offers",
        unsubscribe_url=f"https://shop.example/u/{number:040}",
        confirm_url=f"https://shop.example/d/{number:040}",
        data=data or {},
        interests=["kitchen", "christmas", "garden"][: number % 4],
    )
    return make_envelope(number, template.render(context, locale))


def order(number: int) -> dict[str, Any]:
    items = [{"name": f"Thing {n}", "quantity": n, "price": n * 1.5, "total": n * 3} for n in range(1, number % 5 + 2)]
    return {
        "order_id": f"R{number}", "items": items, "total": 12.5, "currency": "GBP", "delivery": "tomorrow",
        "subtotal": 12.5, "shipping": 0, "address": "1 High Street",
    }  # fmt: skip


@pytest.mark.parametrize("folder", TEMPLATES, ids=lambda path: path.name)
def test_every_template_of_this_repository_expands_to_the_mails_themselves(folder: Path) -> None:
    template = Template("email", folder.name, read_template_folder(folder))
    locales = itertools.cycle([*template.locales])
    envelopes = [
        rendered(template, number, name=NAMES[number % len(NAMES)], data=order(number), locale=next(locales))
        for number in range(60)
    ]
    drafts = drafts_of(envelopes)

    check(envelopes, drafts)
    assert len(drafts) == len(template.locales), "one request for each language"


@pytest.mark.parametrize("folder", TEMPLATES, ids=lambda path: path.name)
def test_mails_whose_clicks_are_counted_expand_to_the_mails_themselves(folder: Path) -> None:
    """Each link is another one for each person, in HTML and text, personal links included."""
    template = Template("email", folder.name, read_template_folder(folder))
    tokens = ClickTokens(KeyRing([b"k" * 32], b"h" * 32))
    writer = LinkWriter("https://go.example", AllowedHosts(("giftshop.example",)), (("utm_source", "letter"),), tokens)
    writer.know(template.links)
    writer.constant = {url: number for number, url in enumerate(writer.shared)}
    envelopes = []
    for number in range(120):
        mail = rendered(template, number, name=NAMES[number % len(NAMES)], data=order(number))
        more = f'<a href="https://giftshop.example/o/{number}?x=1&amp;y=2">Yours</a></body>'
        content = replace(mail.content, html=(mail.content.html or "").replace("</body>", more))
        envelopes.append(make_envelope(number, writer.write(content, 1_000 + number).content))
    drafts = drafts_of(envelopes)

    check(envelopes, drafts)
    assert len(drafts) == 1
    own = {token for envelope in envelopes for token in re.findall(r"/c/([\w-]+)", envelope.content.html or "")}
    assert len(own) >= 120
    assert {tokens.read(token).tracked_id for token in own} == set(range(1_000, 1_120))


TEXTS = st.text(alphabet="ab- \nzq0<>&é😀\r", max_size=12)
PIECES = st.one_of(
    st.sampled_from(["<p>Hello</p>\n", "\n", "-", "zqa", "-zqa00-", "  <td class='wide'>price</td>\n", "x" * 40]),
    st.integers(0, 3),  # a hole with that value of the person's
    st.tuples(st.integers(0, 3), st.text(alphabet="ab\n<>", max_size=60)),  # a section that some have
)


@given(
    pieces=st.lists(PIECES, min_size=1, max_size=15),
    people=st.lists(st.lists(TEXTS, min_size=4, max_size=4), min_size=1, max_size=12),
)
def test_whatever_the_template_does_a_request_expands_to_the_mails_themselves(
    pieces: list[Any], people: list[list[str]]
) -> None:
    def text(values: list[str]) -> str:
        return "!" + "".join(
            piece if isinstance(piece, str)
            else values[piece] if isinstance(piece, int)
            else piece[1] * len(values[piece[0]])  # a loop
            for piece in pieces
        )  # fmt: skip

    envelopes = [
        make_envelope(number, Content("S" + values[0], "", text(values), text(values[::-1]), "en"))
        for number, values in enumerate(people)
    ]

    check(envelopes, drafts_of(envelopes))


@given(st.lists(st.text(alphabet="abc\n <", max_size=40), min_size=1, max_size=8), st.integers(1, 5))
def test_parts_joined_are_the_texts_and_have_no_more_holes_than_told(texts: list[str], most: int) -> None:
    parts = parts_of(texts, most_holes=most)

    for place, text in enumerate(texts):
        assert "".join(part if isinstance(part, str) else part[place] for part in parts) == text
    assert sum(isinstance(part, tuple) for part in parts) <= most


def test_no_key_is_the_beginning_of_another_and_digits_behind_a_hole_are_no_key() -> None:
    between = [f"{n}0 and what everybody reads, part {n} of it\n" for n in range(30)]
    envelopes = [
        make_envelope(
            n, Content("Hi", "", "".join(f"{place}x{n}{text}" for place, text in enumerate(between)), "t", "en")
        )
        for n in range(3)
    ]
    drafts = drafts_of(envelopes)

    check(envelopes, drafts)
    many = [
        make_envelope(
            n, Content("Hi", "", "".join(f"{'ab'[n] * (1 + p)}{t}" for p, t in enumerate(between)), "t", "en")
        )
        for n in range(2)
    ]
    check(many, drafts_of(many))
    assert len(orjson.loads(drafts_of(many)[0].body)["personalizations"][0]["substitutions"]) == 30


@pytest.mark.parametrize("subject", ["-zqa00-", "A-zqa00-B", "zqa"])
def test_a_subject_that_looks_like_a_key_stays_as_it_is(subject: str) -> None:
    envelopes = [make_envelope(n, Content(subject, "", f"<p>{n}</p>", f"{n}", "en")) for n in range(3)]

    check(envelopes, drafts_of(envelopes))


SECTION = "<p>" + "A long story about the kitchen of last winter. " * 400 + "</p>\n"


def test_a_section_that_some_have_and_others_not_divides_them_into_two_requests() -> None:
    envelopes = [
        make_envelope(n, Content("Hi", "", f"<p>{n}</p>\n{SECTION if n % 2 else ''}<p>Bye</p>", f"{n}", "en"))
        for n in range(40)
    ]
    drafts = drafts_of(envelopes)

    check(envelopes, drafts)
    assert sorted(len(draft.envelopes) for draft in drafts) == [20, 20]


def test_who_does_not_fit_goes_alone_and_the_others_together() -> None:
    huge = {3: "".join(f"{n} " for n in range(4_000)), 7: "<i>" * 5_000}
    envelopes = [
        make_envelope(n, Content("Hi", "", f"<p>{huge.get(n, n)}</p>", "text", "en")) for n in range(20)
    ]  # fmt: skip
    drafts = drafts_of(envelopes)

    check(envelopes, drafts)
    assert sorted(len(draft.envelopes) for draft in drafts) == [1, 1, 18]


def test_people_beyond_a_thousand_and_bytes_beyond_thirty_million_take_another_request() -> None:
    many = [make_envelope(n, Content("Hi", "", None, f"Hello {n}", "en")) for n in range(1_001)]
    assert sorted(len(draft.envelopes) for draft in drafts_of(many)) == [1, 1_000]

    large = [make_envelope(n, Content(f"{n}" * 20_000, "", None, "x", "en")) for n in range(900)]
    drafts = drafts_of(large)
    check(large, drafts)
    assert len(drafts) == 2
    assert all(len(draft.body) <= 30_000_000 for draft in drafts)


def test_what_everybody_shares_is_sent_once_and_fragments_are_small() -> None:
    template = Template("email", TEMPLATES[0].name, read_template_folder(TEMPLATES[0]))
    envelopes = [rendered(template, n, name=f"First{n}", data=order(n)) for n in range(250)]
    began = time.perf_counter()
    [draft] = drafts_of(envelopes)
    seconds = time.perf_counter() - began

    whole = sum(len(e.content.text.encode()) + len((e.content.html or "").encode()) for e in envelopes)
    print(f"{len(draft.body):,} bytes for {whole:,} of mail, {seconds * 1000:.0f} ms")
    assert len(draft.body) < whole / 4


def test_a_request_says_what_it_is_and_switches_their_tracking_off() -> None:
    [draft] = drafts_of([make_envelope(n, Content("Hi", "", "<p>1</p>", "1", "en")) for n in range(2)])
    request = orjson.loads(draft.body)

    assert request["categories"] == ["test"]
    assert request["from"] == {"email": "hello@giftshop.example", "name": "The Gift Shop"}
    assert {name: setting["enable"] for name, setting in request["tracking_settings"].items()} == {
        "click_tracking": False, "open_tracking": False, "subscription_tracking": False,
    }  # fmt: skip
    assert [person["custom_args"] for person in request["personalizations"]] == [
        {"dispatcher_message_id": str(UUID(int=MESSAGE.int + n))} for n in range(2)
    ]
    assert request["personalizations"][1]["headers"]["List-Unsubscribe"] == f"<https://shop.example/u/{1:040}>"
    assert request["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_only_what_is_no_marketing_passes_their_unsubscribes_and_spam_reports_and_nothing_their_bounces() -> None:
    marketing, receipt = (
        replace(make_envelope(n, Content("Hi", "", None, "1", "en")), marketing=n == 0) for n in (0, 1)
    )

    requests = [orjson.loads(draft.body) for draft in drafts_of([marketing, receipt])]

    assert [request.get("mail_settings") for request in requests] == [
        None,
        {"bypass_unsubscribe_management": {"enable": True}, "bypass_spam_management": {"enable": True}},
    ]
