"""The public pages: every language whole, nothing from outside, no script."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.content import page_policy, render_page
from dispatcher.content.pages import _FOLDER as FOLDER
from dispatcher.content.pages import Say
from dispatcher.content.plaintext import parse_html

PAGES = ("unsubscribe", "unsubscribed", "working_on_it", "confirm", "confirmed", "invalid_link")
LOCALES = ("en", "pt-BR", "ro", "es", "fr", "de")
CONTEXT = {
    "shop_name": "The Gift Shop", "topic_title": "Offers", "channel": "email", "masked_address": "z•••@mail.example",
    "post_url": "/u/abc.def", "all_url": "/u/abc.def?scope=all",
}  # fmt: skip


def test_every_language_has_every_word() -> None:
    words = yaml.safe_load((FOLDER / "words.yaml").read_text(encoding="utf-8"))

    assert tuple(words) == LOCALES
    for language in words.values():
        assert set(language) == set(words["en"])
        assert set(language["by"]) == {"email", "sms"}
        for key, text in language.items():
            if key != "by":
                assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", words["en"][key]))


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("locale", [*LOCALES, "pt-PT", "en-GB", "it", None])
def test_a_page_is_whole_in_every_language(page: str, locale: str | None) -> None:
    for context in (CONTEXT, {**CONTEXT, "channel": "sms"}, {}):
        html = render_page(page, locale, context)
        tree = parse_html(html)

        assert tree is not None
        assert tree.get("lang") in LOCALES
        assert len(tree.findall(".//h1")) == 1
        assert tree.findtext(".//title")
        assert not re.search(r"<script|<link|<img|@import|url\(|//|\son\w+=|{\w*}", html)


@pytest.mark.parametrize("locale", LOCALES)
def test_no_line_of_a_page_ends_within_the_word_e_mail(locale: str) -> None:
    shown = render_page("unsubscribed", locale, {**CONTEXT, "masked_address": "e-mail@shop.example"})

    assert re.findall(r"e-mail", shown, re.IGNORECASE) == ["e-mail"]  # theirs is theirs, and stays as it is
    assert Say("en", unbroken=False)("unsubscribed_text", topic="News").count("by e-mail") == 1


def test_the_language_is_the_closest_one() -> None:
    assert '<html lang="pt-BR">' in render_page("unsubscribe", "pt-PT", CONTEXT)
    assert '<html lang="en">' in render_page("unsubscribe.html", "it-IT", CONTEXT)


def test_the_question_has_one_button_that_posts_the_one_click() -> None:
    tree = parse_html(render_page("unsubscribe", "en", CONTEXT))

    assert tree is not None
    [form] = tree.findall(".//form")
    assert (form.get("method"), form.get("action")) == ("post", CONTEXT["post_url"])
    assert len(form.findall(".//button")) == 1
    assert [(field.get("name"), field.get("value")) for field in form.findall(".//input")] == [
        ("List-Unsubscribe", "One-Click")
    ]


def test_the_answer_offers_to_stop_everything_only_where_there_is_a_way() -> None:
    assert CONTEXT["all_url"] in render_page("unsubscribed", "en", CONTEXT)
    assert "<form" not in render_page("unsubscribed", "en", {**CONTEXT, "all_url": ""})


@given(text=st.text())
def test_no_name_breaks_a_page(text: str) -> None:
    context = {**CONTEXT, "shop_name": text, "topic_title": text, "masked_address": text}
    tags = re.findall(r"</?[a-z0-9!]+", render_page("unsubscribe", "en", {**context}))

    assert tags == re.findall(r"</?[a-z0-9!]+", render_page("unsubscribe", "en", CONTEXT)) or not text


def test_the_policy_allows_the_style_that_is_there_and_nothing_else() -> None:
    [style] = re.findall(r"<style>(.*?)</style>", render_page("unsubscribe", "en", CONTEXT), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

    assert f"style-src 'sha256-{digest}'" in page_policy()
    assert "default-src 'none'" in page_policy()
