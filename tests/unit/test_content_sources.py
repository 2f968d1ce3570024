"""Words once for each language, the markup once for all: how a template's files are put together, and what is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.content import Template, check_template, message_context, read_template_folder, readable_source
from dispatcher.content.links import links_in
from dispatcher.content.samples import UNSUBSCRIBE_URL
from dispatcher.content.sources import default_language
from dispatcher.definitions import ShopIdentity, Topic

TOPICS = {"offers": Topic(title={"en": "Offers"})}
LAYOUT = """<!doctype html>
<html lang="{{ locale }}">
<body style="background:{{ words.paper }}">
{{ body }}
<p>{{ words.why }} <a href="{{ unsubscribe_url }}">{{ words.leave }}</a></p>
{{ shop.postal_address }}
</body></html>
"""
SHARED = """paper: "#fff"
en: {why: You asked., leave: Unsubscribe}
de: {why: Sie wollten es., leave: Abbestellen}
"""
BODY = """<h1>{{ words.title }}</h1>
<p>{{ words.dear }}</p>
"""
WORDS = """en:
  title: Tea & cake
  dear: Dear {{ contact.first_name or "friend" }},
de:
  title: Tee & Kuchen
  dear: "Guten Tag{% if contact.first_name %} {{ contact.first_name }}{% endif %},"
"""
FILES = {
    "meta.yaml": "class: marketing\ntopic: offers\n",
    "subject.txt": "{{ words.title }}\n",
    "body.html": BODY,
    "words.yaml": WORDS,
    "../layout.html": LAYOUT,
    "../words.yaml": SHARED,
}


def context(first_name: str = "Zoë <b>") -> dict[str, object]:
    return message_context(
        personal={"first_name": first_name},
        contact={},
        shop=ShopIdentity(name="Shop", from_email="a@shop.example", postal_address="1 High Street", countries=("GB",)),
        topic_title="Offers",
        unsubscribe_url=UNSUBSCRIBE_URL,
        data={},
    )


def findings(**changed: str | None) -> list[str]:
    """Return the findings on good files with some changed (`body__html`, `shared`, `layout`) or left out (None)."""
    names = {"shared": "../words.yaml", "layout": "../layout.html"}
    named = {names.get(name, name.replace("__", ".")): text for name, text in changed.items()}
    files = {name: text for name, text in (FILES | named).items() if text is not None}
    return [str(each).removeprefix("templates/email/") for each in check_template("email", "tea", files, TOPICS)]


def test_a_body_is_put_into_the_layout_and_words_into_both() -> None:
    content = Template("email", "tea", FILES).render(context(), "de-AT")

    assert (content.locale, content.subject) == ("de", "Tee & Kuchen")
    assert content.html == (
        '<!doctype html>\n<html lang="de">\n<body style="background:#fff">\n'
        "<h1>Tee & Kuchen</h1>\n<p>Guten Tag Zoë &lt;b&gt;,</p>\n"
        f'<p>Sie wollten es. <a href="{UNSUBSCRIBE_URL}">Abbestellen</a></p>\n1 High Street\n</body></html>\n'
    )
    assert content.text.startswith("Tee & Kuchen\n\nGuten Tag Zoë <b>,\n\nSie wollten es. Abbestellen <https://")


def test_the_first_language_of_the_words_is_the_default() -> None:
    template = Template("email", "tea", FILES)

    assert template.locales == ("en", "de")
    assert template.render(context(""), "ja").html == template.render(context(""), "en").html
    assert "Dear friend," in (template.render(context(""), None).html or "")


def test_a_language_may_have_a_body_of_its_own_and_the_words_of_the_layout() -> None:
    files = FILES | {"body.de.html": "<p>Ganz anders</p>", "subject.de.txt": "Anders"}
    content = Template("email", "tea", files).render(context(), "de")

    assert content.subject == "Anders"
    assert "Ganz anders" in content.text
    assert "Sie wollten es." in content.text
    assert check_template("email", "tea", files, TOPICS) == []


def test_a_templates_own_words_go_before_those_of_all() -> None:
    own = WORDS.replace("  title: Tea & cake", "  title: Tea & cake\n  why: You, too.").replace(
        "  title: Tee & Kuchen", "  title: Tee & Kuchen\n  why: Auch Sie."
    )

    assert "Auch Sie." in Template("email", "tea", FILES | {"words.yaml": own}).render(context(), "de").text
    assert findings(words__yaml=f'paper: "#eee"\n{own}') == []


def test_without_words_of_its_own_a_template_speaks_the_first_language_of_the_layout() -> None:
    files = {name: text for name, text in FILES.items() if name != "words.yaml"}
    files |= {"body.html": "<p>Hello</p>", "subject.txt": "Hello"}

    assert default_language(files) == "en"
    assert Template("email", "tea", files).locales == ("en",)
    assert check_template("email", "tea", files, TOPICS) == []


def test_a_good_template_with_layout_and_words_has_no_findings() -> None:
    assert findings() == []


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"body__html": BODY + "<p>{{ contact.frist_name }}</p>"}, "tea/body.html:3: contact.frist_name is not known"),
        ({"layout": LAYOUT + "{{ shop.nmae }}"}, "layout.html:8: shop.nmae is not known; did you mean name?"),
        ({"layout": LAYOUT + "{% if %}"}, "layout.html:8: Expected an expression"),
        ({"body__html": "{% macro x() %}{% endmacro %}"}, "tea/body.html:1: 'macro' is not available in templates"),
        ({"words__yaml": WORDS + "  more: {{ locale }}\n"}, "tea/words.yaml:7: a text that begins with { needs quotes"),
        (
            {"words__yaml": WORDS.replace("{{ contact.first_name }}", "{{ contact.nme }}")},
            "tea/words.yaml:6: contact.nme is not known",
        ),
        ({"words__yaml": WORDS.replace("{% endif %}", "")}, "tea/words.yaml:6: dear: Unexpected end of template"),
        ({"shared": SHARED + "fr: {why: Voilà}\n"}, "words.yaml:4: fr has no leave, as the other languages have"),
        ({"shared": SHARED + "size: 12\n"}, "words.yaml:4: size is not a text; put it in quotes"),
        ({"shared": SHARED + "pt_br: {why: x, leave: y}\n"}, "words.yaml:4: 'pt_br' is not how a language is written"),
        ({"words__yaml": WORDS.replace("dear:", "Dear:")}, "tea/words.yaml:3: 'Dear': a word's name has lower-case"),
        ({"body__html": BODY + "{{ words.titel }}"}, "tea/body.html:3: words.titel is not known; did you mean title?"),
        (
            {"body__html": BODY + "{{ words.title|upper }}"},
            "tea/body.html:3: a word stands by itself: write {{ words.title }} and no more",
        ),
        (
            {"words__yaml": WORDS.replace("Tea & cake", '"{{ words.dear }} and cake"')},
            "tea/words.yaml:2: a word holds no other word",
        ),
        ({"layout": LAYOUT.replace("{{ body }}", "x {{ body }}")}, "layout.html:1: has no place for the body"),
        ({"layout": LAYOUT.replace("{{ body }}", "{{ body }}\n{{ body }}")}, "layout.html:1: has no place for the bo"),
        ({"words__yaml": "extra: x\n" + WORDS}, "tea/words.yaml:1: warning: words.extra is never used"),
        (
            {"words__yaml": WORDS + "fr:\n  title: Thé\n  dear: Bonjour\n"},
            "words.yaml:1: warning: has no fr, so its words are in en there",
        ),
        (
            {"subject__txt": "Tea"},
            "tea/subject.txt:1: warning: has no word of words.yaml in it, so it is the same in every language",
        ),
        ({"layout": LAYOUT.replace("{{ locale }}", "en")}, 'layout.html:2: says lang="en"; write lang="{{ locale }}"'),
        (
            {"layout": LAYOUT.replace("{{ unsubscribe_url }}", "https://shop.example")},
            "tea/body.html:1: has no unsubscribe link that can be seen",
        ),
        ({"layout": LAYOUT.replace("{{ shop.postal_address }}", "")}, "tea/body.html:1: has no postal address"),
    ],
)  # fmt: skip
def test_a_finding_says_where_it_is_written(changed: dict[str, str], finding: str) -> None:
    found = findings(**changed)

    assert any(each.startswith(finding) for each in found), found


def test_what_is_wrong_in_the_words_is_said_once() -> None:
    wrong = WORDS.replace("Dear {{ contact.first_name", "Dear {{ contact.frist_name")

    assert findings(words__yaml=wrong) == [
        "tea/words.yaml:3: contact.frist_name is not known; did you mean first_name?"
    ]


def test_a_text_message_has_no_words() -> None:
    files = {"meta.yaml": "class: transactional\n", "body.txt": "Hi", "words.yaml": "en: {a: b}\n"}

    found = [str(each) for each in check_template("sms", "tea", files, {})]
    assert "templates/sms/tea/words.yaml:1: an SMS has only body.txt and its variants" in found


def test_links_in_words_and_layout_are_found_where_they_are_put_in() -> None:
    words = WORDS.replace("title: ", "title: See https://shop.example/")
    layout = LAYOUT.replace("{{ words.why }}", '<a href="https://shop.example/">x</a>')
    found = links_in(FILES | {"words.yaml": words, "../layout.html": layout})

    assert [(link.file, link.line, link.url) for link in found if link.is_constant] == [
        ("../layout.html", 5, "https://shop.example/"),
        ("subject.txt", 1, "https://shop.example/Tee"),
        ("subject.txt", 1, "https://shop.example/Tea"),
    ]


def test_the_wording_that_evidence_keeps_is_in_the_readers_language() -> None:
    wording = readable_source(FILES, "de")

    assert wording.startswith("Tee & Kuchen\n\nTee & Kuchen\n\nGuten Tag{% if")
    assert "Sie wollten es." in wording


# --- on disk


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / "templates" / "email" / "tea" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "templates" / "email" / "tea"


def test_a_template_that_uses_the_layout_keeps_a_copy_of_it(tmp_path: Path) -> None:
    assert read_template_folder(write(tmp_path, FILES)) == FILES


def test_a_body_that_is_a_whole_document_is_not_put_into_a_layout(tmp_path: Path) -> None:
    whole = FILES | {"body.html": "<html><body>{{ words.title }} {{ words.dear }}</body></html>"}
    files = read_template_folder(write(tmp_path, whole))

    assert files.keys() == {"meta.yaml", "subject.txt", "body.html", "words.yaml"}
    assert Template("email", "tea", files).compose(context(), "de").html == (
        "<html><body>Tee & Kuchen Guten Tag Zoë &lt;b&gt;,</body></html>"
    )


def test_a_layout_belongs_beside_the_templates_and_not_into_one(tmp_path: Path) -> None:
    folder = write(tmp_path, FILES | {"layout.html": LAYOUT})

    with pytest.raises(Exception, match=r"tea/layout\.html: has no place in a template"):
        read_template_folder(folder)


def test_a_layout_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, {name: text for name, text in FILES.items() if name != "../layout.html"})
    (tmp_path / "secret").write_text("x")
    (folder.parent / "layout.html").symlink_to(tmp_path / "secret")

    with pytest.raises(Exception, match=r"layout\.html: is a link that leads out of the folder"):
        read_template_folder(folder)
