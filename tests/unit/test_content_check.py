"""What `template check` says, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.content import OWN_DATA, Template, check_template, read_template_folder
from dispatcher.definitions import Topic
from dispatcher.resources import resource

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "workspace" / "templates"
TOPICS = {"offers": Topic(title={"en": "Offers"}, channels=("email", "sms")), "news": Topic(title={"en": "News"})}
LINK = '<a href="{{ unsubscribe_url }}">Unsubscribe</a>'
GOOD = f'<html lang="en"><body>\n<p>Hello {{{{ contact.first_name }}}}</p>\n{LINK}\n{{{{ shop.postal_address }}}}'
META = "class: marketing\ntopic: offers\n"


def findings(*, channel: str = "email", **changed: str | None) -> list[str]:
    """Return the findings on a good template with some files changed (body__html) or left out (None)."""
    mail = {"subject.txt": "Hello", "body.html": GOOD} if channel == "email" else {}
    named = {name.replace("__", "."): text for name, text in changed.items()}
    files = {name: text for name, text in ({"meta.yaml": META} | mail | named).items() if text is not None}
    found = check_template(channel, "test", files, TOPICS)
    return [str(finding).removeprefix(f"templates/{channel}/test/") for finding in found]


@pytest.mark.parametrize(
    "folder", sorted(EXAMPLES.glob("*/*/")), ids=lambda folder: f"{folder.parent.name}/{folder.name}"
)
def test_the_examples_have_no_findings_and_are_small(folder: Path) -> None:
    files = read_template_folder(folder)

    assert check_template(folder.parent.name, folder.name, files, TOPICS) == []
    assert all(len(text.encode()) < 20_000 for text in files.values())
    assert len(Template(folder.parent.name, folder.name, files).locales) == 5


def test_a_good_mail_has_no_findings() -> None:
    assert findings() == []
    assert findings(body__txt="Hi {{ unsubscribe_url }} {{ shop.postal_address }}") == []


@pytest.mark.parametrize(
    "without",
    [
        GOOD.replace(LINK, ""),
        GOOD.replace(LINK, f"<!-- {LINK} -->"),
        GOOD.replace(LINK, f'<div style="display: none">{LINK}</div>'),
        GOOD.replace(LINK, '<a href="{{ unsubscribe_url }}"></a>'),
        GOOD.replace(LINK, "{% if contact.country %}" + LINK + "{% endif %}"),
        GOOD.replace(LINK, "{{ unsubscribe_url }}"),
    ],
    ids=["none", "commented out", "hidden", "no label", "only for some", "no link"],
)
def test_a_missing_unsubscribe_link_is_found(without: str) -> None:
    assert any(
        f.startswith("body.html:1: has no unsubscribe link that can be seen") for f in findings(body__html=without)
    )


def test_every_language_and_the_text_need_their_own_way_out() -> None:
    romanian = GOOD.replace('"en"', '"ro"').replace(LINK, "")

    assert findings(body__ro__html=romanian)[0].startswith("body.ro.html:1: has no unsubscribe link")
    assert findings(body__txt="Hi {{ shop.postal_address }}") == [
        "body.txt:1: has no way out; write {{ unsubscribe_url }}"
    ]


def test_a_missing_postal_address_is_found() -> None:
    expected = "has no postal address; write {{ shop.postal_address }}"

    assert findings(body__html=GOOD.replace("{{ shop.postal_address }}", "")) == [f"body.html:1: {expected}"]
    assert findings(body__txt="{{ unsubscribe_url }}") == [f"body.txt:1: {expected}"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("{{ contact.frist_name }}", "contact.frist_name is not known; did you mean first_name?"),
        ("{% if 1 == 2 %}{{ nmae }}{% endif %}", "nmae is not known; there are confirm_url, contact, data,"),
        (
            "{{ contact.attributes.size }}",
            'contact.attributes.size is not known for every contact; write |default("...")',
        ),
        ("{{ shop.adress }}", "shop.adress is not known"),
    ],
)
def test_an_undefined_variable_is_found_with_its_line(wrong: str, reason: str) -> None:
    found = findings(body__html=GOOD.replace("</p>", f"\n{wrong}</p>"))

    assert [f.startswith(f"body.html:3: {reason}") for f in found] == [True]


def test_what_a_template_sets_itself_is_known() -> None:
    source = "{% set greeting = 'Hi' %}{% for x in interests %}{{ loop.index }}{{ x }}{{ greeting }}{% endfor %}"

    assert findings(body__html=GOOD.replace("</p>", f"{source}</p>")) == []


def test_everything_wrong_is_said_at_once() -> None:
    body = "<p>{{ contact.frist_name }}</p>" + "x" * 102_400

    assert [finding.split(";")[0] for finding in findings(body__html=body)] == [
        "body.html:1: contact.frist_name is not known",
        "body.html:1: has no postal address",
        "body.html:1: has no unsubscribe link that can be seen",
        "body.html:1: renders to 102,431 bytes",
    ]


def test_a_mail_that_gmail_would_cut_off_is_found() -> None:
    over, close = (GOOD.replace("Hello", "x" * size) for size in (102_400, 95_000))

    assert [f.partition(" bytes")[0][:24] for f in findings(body__html=over)] == ["body.html:1: renders to "]
    assert findings(body__html=close)[0].startswith("body.html:1: warning: renders to 95,")


def test_the_size_counts_what_is_rendered_not_what_is_written() -> None:
    loop = "{% for i in range(1100) %}" + "x" * 100 + "{% endfor %}"

    assert any("Gmail cuts" in finding for finding in findings(body__html=GOOD.replace("</p>", f"{loop}</p>")))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"body__html": "a\n{% if %}"}, "body.html:2: Expected an expression, got 'end of statement block'"),
        ({"body__html": "a\n{{ 'x'|bogus }}"}, "body.html:2: No filter named 'bogus'."),
        ({"body__html": "{% include 'x' %}"}, "body.html:1: 'include' is not available in templates"),
        ({"body__html": None}, "body.html:1: is missing"),
        ({"subject__txt": None}, "subject.txt:1: is missing; a mail needs a subject"),
        ({"subject__txt": " \n"}, "subject.txt:1: renders to nothing; a mail needs a subject"),
        ({"subject__txt": "x" * 151}, "subject.txt:1: warning: has 151 characters; mail programs show less than 150"),
        ({"meta__yaml": None}, "meta.yaml:1: is missing; it says class: marketing and a topic, or class:"),
        ({"meta__yaml": "class: marketing"}, "meta.yaml:1: a marketing template needs a topic"),
        ({"meta__yaml": "topic: offers\nclass: loud"}, "meta.yaml:2: class: Input should be 'marketing'"),
        ({"meta__yaml": "class: [\n"}, "meta.yaml:2: "),
        ({"meta__yaml": "class: marketing\ntopic: sales"}, "meta.yaml:2: there is no topic sales; dispatcher.toml"),
        ({"body__html": GOOD.replace("<p>", '<a href="http://a.example">x</a>')}, "body.html:2: warning: an http://"),
        ({"body__html": GOOD.replace("<p>", "<p title={{ contact.locale }}>")}, "body.html:2: a value stands in"),
        ({"body__ro__html": GOOD}, 'body.ro.html:1: says lang="en"; write lang="ro"'),
        ({"body__ro__txt": "x"}, "body.ro.txt:1: is never used: there is no body.ro.html"),
        ({"logo__png": "x"}, "logo.png:1: has no place in a template"),
        ({"body__html": "{% for a in range(9000) %}{% for b in range(9000) %}{% endfor %}{% endfor %}" + GOOD},
         "body.html:1: the loops of this template take too many turns"),
    ],
)  # fmt: skip
def test_each_finding_has_its_file_and_line(changed: dict[str, str | None], expected: str) -> None:
    assert findings(**changed)[0].startswith(expected)


def test_a_transactional_mail_is_tried_with_stand_ins_for_its_data() -> None:
    body = "{{ data.total|money }}{% for i in data.items %}{{ i.price * i.quantity }}{% endfor %}{{ data.at|date }}"

    assert findings(meta__yaml="class: transactional", body__html=body) == []


def test_a_text_message_is_checked_for_its_parts_and_its_way_out() -> None:
    good = "Hi {{ contact.first_name }} {{ unsubscribe_url }}"

    assert findings(channel="sms", body__txt=good) == []
    assert findings(channel="sms", body__txt="Hi") == ["body.txt:1: has no way out; write {{ unsubscribe_url }}"]
    assert findings(channel="sms", body__txt=good + "x" * 1530) == [
        "body.txt:1: is sent in 11 parts (GSM-7), each of them paid; at most 10 are allowed",
        "body.txt:1: is sent in 25 parts (UCS-2), each of them paid; at most 10 are allowed",
    ]
    assert findings(channel="sms", body__txt=good, subject__txt="x") == [
        "subject.txt:1: an SMS has only body.txt and its variants"
    ]
    assert findings(channel="sms", meta__yaml="class: marketing\ntopic: news", body__txt=good) == [
        "meta.yaml:2: topic news is not offered on sms"
    ]


def test_a_confirmation_without_its_link_in_one_language_is_found() -> None:
    files = {
        "meta.yaml": "class: transactional\n",
        "body.txt": "Confirm: {{ confirm_url }}\n",
        "body.de.txt": "Bitte best\u00e4tigen\n",
    }
    found = [str(one) for one in check_template("sms", "opt-in-confirmation", files, {})]

    assert found == [
        "templates/sms/opt-in-confirmation/body.de.txt:1: "
        "has no link to confirm; write {{ confirm_url }}, as the others do"
    ]


def test_advertising_confirms_nothing() -> None:
    found = findings(body__html=GOOD.replace("</p>", "{{ confirm_url }}</p>"))

    assert any("confirm_url is only in opt-in confirmations" in one for one in found)


# --- the message that opens what we know of somebody


@pytest.mark.parametrize("channel", ["email", "sms"])
def test_our_own_message_with_the_link_to_data_is_sound_in_every_language(channel: str) -> None:
    files = read_template_folder(resource("templates", channel, OWN_DATA))

    assert check_template(channel, OWN_DATA, files, {}) == []
    assert set(Template(channel, OWN_DATA, files).locales) == {"en", "de", "es", "fr", "pt-BR", "ro"}


def test_the_link_to_data_is_in_that_message_only_and_in_each_language_of_it() -> None:
    other = {"meta.yaml": "class: transactional\n", "body.txt": "{{ own_data_url }}\n"}
    lacking = {"meta.yaml": "class: security\n", "body.txt": "{{ own_data_url }}\n", "body.de.txt": "Ihre Daten\n"}

    assert [each.message for each in check_template("sms", "order", other, {})] == [
        "own_data_url is only in template own-data, of class security"
    ]
    assert [(each.file, each.message) for each in check_template("sms", OWN_DATA, lacking, {})] == [
        ("templates/sms/own-data/body.de.txt", "has no link to their data; write {{ own_data_url }}, as the others do")
    ]
