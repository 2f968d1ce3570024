"""Links found in templates, and written anew in messages."""

from __future__ import annotations

import html as html_module
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.clicks.writing import LinkWriter
from dispatcher.content import Content
from dispatcher.content.links import FILLED_IN, links_in, rewritten_html, rewritten_text
from dispatcher.destinations import AllowedHosts
from dispatcher.keys import KeyRing
from dispatcher.tokens import ClickTokens

PUBLIC = "https://go.example"
HOSTS = AllowedHosts(("shop.example",))


@pytest.fixture
def tokens() -> ClickTokens:
    return ClickTokens(KeyRing([b"1" * 32], b"h" * 32))


def content(html: str | None, text: str = "Hello") -> Content:
    return Content("Hi", "", html, text, "en")


def test_links_are_found_where_they_stand() -> None:
    files = {
        "meta.yaml": "class: marketing # https://shop.example/not\n",
        "body.html": "<p>\n<a title='a > b' href=\"https://shop.example/?a=1&amp;b=2\">x</a>\n"
        "<a href={{ unsubscribe_url }}>y</a><a href='https://shop.example/{{ data.id|default(\"x\") }}/z'>\n"
        '<a href="mailto:a@b.example"><link href="https://shop.example/css"><img src="https://shop.example/i">\n'
        '<!--[if mso]><v:roundrect href="https://shop.example/vml"><![endif]-->',
        "body.txt": "See (https://shop.example/text), or\nhttps://shop.example/{# no #}t.",
    }
    found = [(link.file, link.line, link.url, link.is_constant) for link in links_in(files)]

    assert [(file, line, url) for file, line, url, constant in found if constant] == [
        ("body.html", 2, "https://shop.example/?a=1&b=2"),
        ("body.html", 5, "https://shop.example/vml"),
        ("body.txt", 1, "https://shop.example/text"),
    ]
    filled = [(file, line, url.replace(FILLED_IN, "")) for file, line, url, constant in found if not constant]
    assert filled == [
        ("body.html", 3, ""), ("body.html", 3, "https://shop.example//z"), ("body.txt", 2, "https://shop.example/t"),
    ]  # fmt: skip


def test_only_links_to_allowed_hosts_are_counted_and_the_ways_out_never(tokens: ClickTokens) -> None:
    untouched = [
        f"{PUBLIC}/u/abc", f"{PUBLIC}/p/abc", f"{PUBLIC}/d/abc", f"{PUBLIC}/c/abc", "mailto:hello@shop.example",
        "tel:+447700900123", "https://other.example/", "#top", "/relative", "https://shop.example@evil.example/",
    ]  # fmt: skip
    html = "".join(f'<a href="{url}">x</a>' for url in untouched)
    writer = LinkWriter(PUBLIC, AllowedHosts(("shop.example", "go.example")), (("utm_source", "x"),), tokens)
    written = writer.write(content(html, " ".join(untouched)), 7)

    assert (written.content.html, written.content.text, written.personal) == (html, " ".join(untouched), {})


def test_a_destination_has_one_link_in_html_and_text_and_its_own_in_each_message(tokens: ClickTokens) -> None:
    writer = LinkWriter(PUBLIC, HOSTS, (), tokens, {"https://shop.example/a": 0})
    html = "<a href='https://shop.example/a'>A</a> <a HREF = https://shop.example/o/7>O</a>"
    text = "A <https://shop.example/a>, O: https://shop.example/o/7."
    one, other = (writer.write(content(html, text), number) for number in (1, 2))

    assert one.personal == other.personal == {1: "https://shop.example/o/7"}
    links = [f"{PUBLIC}/c/{token}" for token in _tokens(one.content.html)]
    assert one.content.html == f'<a href="{links[0]}">A</a> <a HREF = "{links[1]}">O</a>'
    assert one.content.text == f"A <{links[0]}>, O: {links[1]}."
    assert [tokens.read(token) for token in _tokens(one.content.html)] == [
        tokens.read(token) for token in _tokens(one.content.text)
    ]
    assert [(c.tracked_id, c.number) for c in map(tokens.read, _tokens(other.content.html))] == [(2, 0), (2, 1)]
    assert "shop.example/o" not in f"{one.content}"


def _tokens(text: str | None) -> list[str]:
    return [part.split('"')[0].split(">")[0].rstrip(".,") for part in (text or "").split("/c/")[1:]]


def test_without_counting_clicks_utm_parameters_are_added_and_nothing_else_changes() -> None:
    writer = LinkWriter(PUBLIC, HOSTS, (("utm_source", "letter"),))
    written = writer.write(
        content('<a href="https://shop.example/?a=1&amp;b=2#x">A</a><a href="https://b.example/">', "https://shop.example/c"),
        None,
    )  # fmt: skip

    assert written.content.html == (
        '<a href="https://shop.example/?a=1&amp;b=2&amp;utm_source=letter#x">A</a><a href="https://b.example/">'
    )
    assert written.content.text == "https://shop.example/c?utm_source=letter"


def test_a_preview_shows_where_a_counted_link_will_stand(tokens: ClickTokens) -> None:
    written = LinkWriter(PUBLIC, HOSTS, (), tokens).write(content(None, "https://shop.example/"), None)

    assert written.content.text == f"{PUBLIC}/c/preview"


def test_a_writer_with_nothing_to_do_returns_the_very_content() -> None:
    same = content("<a href='https://shop.example/'>")

    assert LinkWriter(PUBLIC, HOSTS).write(same, None).content is same


@given(st.text(alphabet="<>a \"'=href:/v!-&;\n", max_size=200))
def test_html_whose_links_all_stay_is_byte_for_byte_the_same(text: str) -> None:
    assert rewritten_html(text, lambda _: None) == text
    assert rewritten_text(text, lambda _: None) == text


@given(st.text(alphabet=st.characters(exclude_characters="\x00", codec="utf-8"), max_size=40))
def test_whatever_a_value_says_it_stays_inside_its_attribute(value: str) -> None:
    """A person's own data cannot end the tag or add to it: it is escaped before, and the new link after."""
    page = f'<a href="https://shop.example/?q={html_module.escape(value)}" class="x">y</a>'
    changed = rewritten_html(page, lambda url: f"{url}&more=1")

    assert changed.startswith('<a href="https://shop.example/?q=')
    assert changed.endswith('" class="x">y</a>')
    assert changed.count("<") == 2
    assert changed.count('"') == 4


@pytest.mark.parametrize(
    "text", ["<a " * 30_000, "<a '" * 30_000, "<a x=" + '"' * 100_000, "https://" * 30_000 + ")" * 50_000]
)
def test_no_text_takes_long(text: str) -> None:
    """ASVS 5.0 1.3.12: linear time, whatever is in a mail of 100,000 characters."""
    began = time.thread_time()
    rewritten_html(text, lambda _: None)
    rewritten_text(text, lambda _: None)

    assert time.thread_time() - began < 2
