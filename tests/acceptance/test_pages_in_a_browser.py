"""The public pages in a real browser: without scripts, by keyboard, on a phone, in every language, light and dark."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from browsing import NARROW, WIDE, a_browser, judge, picture, settings, show, watched
from own_pages import Fields, OwnPages, encoded, make_pages
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import Engine

from dispatcher.keys import KeyRing

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
from web_server import Answer, Web, serving

LANGUAGES = ("en", "de", "es", "fr", "pt-BR", "ro")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as browser:
        yield browser


@pytest.fixture
def pages(browser: Browser, database: Engine, key_ring: KeyRing, tmp_path: Path) -> OwnPages:
    return make_pages(database, key_ring, tmp_path / "home")


@pytest.fixture
def web(pages: OwnPages, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with serving(pages.database, key_ring, tmp_path / "home", wait=timedelta(milliseconds=200)) as web:
        yield web


def at(web: Web, path: str) -> str:
    return f"http://127.0.0.1:{web.port}{path}"


def said(page: Page) -> str:
    """What the page tells a screen reader of what was just done."""
    return page.locator("[role=status], [role=alert]").inner_text()


def unfold(page: Page, name: str) -> None:
    details = page.locator("details", has=page.get_by_role("heading", name=name, exact=True))
    if details.get_attribute("open") is None:
        details.locator("summary").click()


# --- quick looks, with every `make test`


def test_the_preference_centre_is_sound_and_fits_a_phone(browser: Browser, pages: OwnPages, web: Web) -> None:
    with browser.new_context(**settings(size=NARROW)) as context:
        page, complaints = watched(context)
        page.goto(at(web, pages.page()))

        assert judge(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        assert complaints == []


def test_one_button_unsubscribes_without_scripts(browser: Browser, pages: OwnPages, web: Web) -> None:
    with browser.new_context(**settings(script=False, locale="en-GB")) as context:
        page, complaints = watched(context)
        page.goto(at(web, pages.way_out()))
        page.get_by_role("button", name="Unsubscribe").click()

        assert "You are unsubscribed" in said(page)
        assert pages.state() == "withdrawn"
        assert complaints == []


# --- the whole journey


@pytest.mark.thorough
def test_the_whole_journey_works_without_scripts(browser: Browser, pages: OwnPages, web: Web) -> None:
    with browser.new_context(**settings(script=False, locale="en-GB", size=NARROW, accept_downloads=True)) as context:
        page, complaints = watched(context)
        page.goto(at(web, pages.way_out()))
        page.get_by_role("button", name="Unsubscribe").click()
        page.get_by_role("link", name="What else?").click()
        _choose_topics(page, pages)
        _pause(page, pages)
        _keep_quiet(page, pages)
        _change_language(page, pages)
        _ask_for_data(page, pages)
        page.goto(at(web, pages.link_in_mail("m") + "?lang=en"))
        _use_data(page, pages)
        assert complaints == []


def _choose_topics(page: Page, pages: OwnPages) -> None:
    offers = page.get_by_role("group", name="By e\u2011mail").get_by_role("checkbox", name="Offers")
    assert not offers.is_checked()
    offers.check()
    page.get_by_role("checkbox", name="News, once a month").check()
    page.get_by_role("button", name="Save my choice").click()
    assert "You will receive “Offers” by e\N{NON-BREAKING HYPHEN}mail from now on." in said(page)
    assert "please confirm “News, once a month” there" in said(page)
    assert page.title().startswith("Saved")
    assert (pages.state(), pages.state("news")) == ("granted", "pending")


def _pause(page: Page, pages: OwnPages) -> None:
    unfold(page, "Pause")
    page.get_by_role("radio", name="Four weeks").check()
    page.get_by_role("button", name="Pause", exact=True).click()
    assert "Paused until" in said(page)
    assert pages.one("SELECT paused_until IS NOT NULL FROM contact")
    page.get_by_role("button", name="End the pause").click()
    assert "The pause has ended" in said(page)
    page.get_by_role("radio", name="Until a day of my choice").check()
    day = page.get_by_label("The first day you want to hear from us again")
    day.fill(day.get_attribute("max") or "")
    page.get_by_role("button", name="Pause", exact=True).click()
    assert "Paused until" in said(page)


def _keep_quiet(page: Page, pages: OwnPages) -> None:
    unfold(page, "Quiet hours")
    page.get_by_label("From", exact=True).fill("22:00")
    page.get_by_label("To", exact=True).fill("08:00")
    page.get_by_role("group", name="Whole quiet days").get_by_role("checkbox", name="Sunday").check()
    page.get_by_role("button", name="Save quiet hours").click()
    assert "Your quiet hours are saved" in said(page)
    assert pages.one("SELECT jsonb_array_length(quiet_hours) FROM contact") == 2
    expect(page.get_by_label("From", exact=True)).to_have_value("22:00")


def _change_language(page: Page, pages: OwnPages) -> None:
    unfold(page, "Language")
    page.get_by_label("Your language").select_option("de")
    page.get_by_role("button", name="Save language").click()
    assert "Ihre Sprache ist gespeichert." in said(page)
    assert page.locator("html").get_attribute("lang") == "de"
    page.get_by_role("link", name="English").click()
    expect(page.get_by_role("heading", name="Your preferences")).to_be_visible()
    assert pages.one("SELECT locale FROM contact") == "de"  # the switch is for the page alone


def _ask_for_data(page: Page, pages: OwnPages) -> None:
    unfold(page, "Your data")
    page.get_by_role("button", name="Send me the link").click()
    assert "We have sent a link to a•••@m•••.example" in said(page)


def _use_data(page: Page, pages: OwnPages) -> None:
    page.get_by_role("button", name="Open my data").click()
    page.get_by_label("First name").fill("Ana")
    page.get_by_role("button", name="Save corrections").click()
    assert "Your corrections are saved" in said(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download everything").click()
    assert "anna@mail.example" in json.dumps(json.loads(Path(waiting.value.path()).read_text(encoding="utf-8")))
    page.get_by_role("button", name="Show everything").click()
    assert "anna@mail.example" in page.locator("main").inner_text()
    page.get_by_role("button", name="At a glance").click()
    page.get_by_role("checkbox", name="Yes, erase everything about me").check()
    page.get_by_role("button", name="Erase my data for good").click()
    assert "Your data have been erased" in said(page)
    assert pages.one("SELECT data_key FROM contact") is None


@pytest.mark.thorough
def test_everything_can_be_reached_and_done_by_keyboard(browser: Browser, pages: OwnPages, web: Web) -> None:
    with browser.new_context(**settings(locale="en-GB")) as context:
        page, complaints = watched(context)
        page.goto(at(web, pages.page()))
        _tab_to(page, "Letters from the shop")
        page.keyboard.press("Space")
        _tab_to(page, "Save my choice")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        assert "You will receive “Letters from the shop”" in said(page)
        assert pages.state("letters") == "granted"
        _tab_to(page, "Pause")
        page.keyboard.press("Enter")
        _tab_to(page, "One week")
        page.keyboard.press("ArrowDown")
        _tab_to(page, "Pause", tag="BUTTON")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        assert "Paused until" in said(page)
        assert complaints == []


def _tab_to(page: Page, name: str, tag: str | None = None) -> None:
    """Press Tab until what is called so has the focus, which must be seen."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => { const it = document.activeElement, label = it.labels && it.labels[0];
            return {tag: it.tagName, name: (label || it).innerText || '', outline: getComputedStyle(it).outlineStyle,
                width: parseFloat(getComputedStyle(it).outlineWidth)} }"""
        )
        if focused["name"].startswith(name) and tag in (None, focused["tag"]):
            assert focused["outline"] == "solid"
            assert focused["width"] >= 2
            return
    raise AssertionError(f"{name} cannot be reached with Tab")


@pytest.mark.thorough
def test_a_screen_reader_hears_what_each_part_is(browser: Browser, pages: OwnPages, web: Web) -> None:
    with browser.new_context(**settings(locale="en-GB")) as context:
        page = context.new_page()
        page.goto(at(web, pages.page()))
        tree = page.locator("body").aria_snapshot()

        for part in (
            'main:', 'heading "Your preferences" [level=1]', 'heading "What you hear about" [level=2]',
            'group "By e\u2011mail a•••@m•••.example"', 'checkbox "Offers" [checked]', 'button "Save my choice"',
            'navigation "Language of this page"', 'group "By text message +44••• 23"',
        ):  # fmt: skip
            assert part in tree
        news = page.get_by_role("checkbox", name="News, once a month")
        note = news.get_attribute("aria-describedby")
        assert "first ask you to confirm" in page.locator(f"#{note}").inner_text()


# --- every page, every language, light and dark, narrow and wide


@pytest.mark.thorough
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_is_accessible_and_fits(browser: Browser, pages: OwnPages, web: Web, language: str) -> None:
    shown = every_page(pages, web, language)
    wrong = []
    for dark in (False, True):
        for size in (NARROW, WIDE):
            with browser.new_context(**settings(dark=dark, size=size)) as context:
                page, complaints = watched(context)
                for name, answer in shown.items():
                    assert f'<html lang="{language}">' in answer.text, name
                    show(page, answer.text.replace("<details>", "<details open>"), dict(answer.headers))
                    where = f"{name}, {'dark' if dark else 'light'}, {size['width']} px"
                    wrong += [f"{where}: {one}" for one in judge(page)]
                    if page.evaluate("document.documentElement.scrollWidth") > size["width"]:
                        wrong.append(f"{where}: it is wider than the window: {_too_wide(page)}")
                    _take_picture(page, name, language, dark=dark, narrow=size is NARROW)
                wrong += complaints
    assert wrong == []


def _too_wide(page: Page) -> str:
    """Return what sticks out of the window."""
    return str(
        page.evaluate("""() => [...document.querySelectorAll('body *')]
            .filter(it => it.getBoundingClientRect().right > innerWidth + 1).map(it => it.outerHTML.slice(0, 120))""")
    )


_PICTURES = {
    ("unsubscribe", "en", False, True), ("unsubscribed", "en", False, True), ("own_data_open", "en", False, True),
    ("unsubscribe", "de", True, True), ("own_data", "en", False, True),
}  # fmt: skip


def _take_picture(page: Page, name: str, language: str, *, dark: bool, narrow: bool) -> None:
    if (name, language, dark, narrow) in _PICTURES:
        picture(page, f"{name.replace('_', '-')}-{language}{'-dark' if dark else ''}")


def every_page(pages: OwnPages, web: Web, language: str) -> dict[str, Answer]:
    """Walk through all there is to see, and return what the server answered, by the name of the page."""
    form = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html", "Accept-Language": language}
    lang = f"?lang={language}"

    def get(path: str) -> Answer:
        return web.ask("GET", path, headers=form)

    def post(path: str, fields: list[tuple[str, str]]) -> Answer:
        return web.ask("POST", path, encoded(fields), form)

    home = pages.page() + lang
    shown = {"unsubscribe": get(pages.way_out()), "invalid_link": get("/u/x"), "own_data_invalid": get("/m/x")}
    shown["preferences"] = get(home)
    shown["preferences, chosen"] = post(
        home, [("do", "topics"), ("shown", "email:offers"), ("topic", "email:news"), ("topic", "sms:offers")]
    )
    shown["preferences, paused"] = post(home, [("do", "pause"), ("for", "4w")])
    shown["preferences, quiet"] = post(
        home, [("do", "quiet"), ("from", "22:00"), ("to", "08:00"), ("day", "mon"), ("day", "fri"), ("whole", "sun")]
    )
    shown["preferences, wrong"] = post(home, [("do", "pause"), ("for", "day"), ("day", "2001-01-01")])
    confirm = pages.link_in_mail("d")
    shown["confirm"], shown["confirmed"] = get(confirm), post(confirm, [])
    shown["preferences, data"] = post(home, [("do", "data")])
    shown["unsubscribed"] = post(pages.way_out(), [])
    data = pages.link_in_mail("m") + lang
    shown["own_data_open"] = get(data)
    fields = Fields(shown["own_data_open"].text)
    shown["own_data"] = post(data, fields.form("open"))
    forms = Fields(shown["own_data"].text)
    shown["own_data, corrected"] = post(data, [*forms.form("correct")])
    shown["own_data, not sure"] = post(data, forms.form("erase"))
    shown["own_data_all"] = post(data, forms.form("all"))
    shown["erased"] = post(data, [*forms.form("erase"), ("sure", "yes")])
    return shown


# --- pictures for the documents


@pytest.mark.thorough
def test_the_pages_look_as_they_are_documented(browser: Browser, pages: OwnPages, web: Web) -> None:
    """Made anew by `make screenshots`; otherwise it only sees that they can be made."""
    for name, path, more in (
        ("preferences-en", pages.page(), {"size": {"width": 700, "height": 900}}),
        ("preferences-en-phone", pages.page(), {"size": NARROW}),
        ("preferences-de-dark-phone", f"{pages.page()}?lang=de", {"size": NARROW, "dark": True}),
    ):
        with browser.new_context(**settings(**more), locale="en-GB") as context:
            page, complaints = watched(context)
            page.goto(at(web, path))
            if name == "preferences-en":
                unfold(page, "Quiet hours")
            picture(page, name)
            assert complaints == []
