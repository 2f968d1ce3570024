"""Nothing that somebody typed becomes code, a header, a formula or a line of the log.  Numbers: OWASP ASVS 5.0."""

from __future__ import annotations

import csv
import email
import email.policy
import io
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import logs, reports
from dispatcher.content import Content, RenderFailed, Template, TemplateInvalid, message_context
from dispatcher.content.sandbox import Compiled
from dispatcher.definitions import ShopIdentity
from dispatcher.errors import Refused
from dispatcher.imports.rejects import Rejects
from dispatcher.mail import headers_for, to_mime
from dispatcher.replies.reading import read_text

SHOP = ShopIdentity(name="Shop", from_email="hello@shop.example", postal_address="1 High Street")
FILES = {
    "meta.yaml": "class: marketing\ntopic: offers\n",
    "subject.txt": "For {{ contact.first_name }}\n",
    "body.html": "<html><body><p title=\"{{ contact.first_name }}\">{{ contact.first_name }}</p>"
    '<a href="{{ unsubscribe_url }}">Stop</a> {{ shop.postal_address }}</body></html>\n',
}  # fmt: skip
CRLF = [
    "a\r\nBcc: all@people.example", "a\nBcc: b@c.example", "a\r\n\r\n<html>", "\rX: y", "a\x0bX: y", "a\x85X: y",
    "a\u2028X: y", "a\u2029X: y", "\x00", "=?utf-8?q?a=0D=0ABcc=3A_x?=",
]  # fmt: skip

# Classics of server-side template injection for Jinja2, and what they aim at.
ATTACKS = [
    "{{ 7.__class__ }}",
    "{{ config }}",
    "{{ self }}",
    "{{ request.application.__globals__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ().__class__.__bases__[0].__subclasses__()[59].__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ range.__class__ }}",
    "{{ namespace(a=1).__class__ }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ contact['__class__'] }}",
    "{{ contact|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ contact|map(attribute='__class__')|list }}",
    "{{ contact.first_name|map('upper') }}",
    "{{ [contact]|map(attribute='first_name.__class__')|list }}",
    "{{ contact.first_name.__init__.__globals__ }}",
    "{{ contact.first_name.format(contact) }}",
    "{{ '%s'|format(contact.__class__) }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{% set x = ''.__class__ %}{{ x }}",
    "{% with a = ''.__class__ %}{{ a }}{% endwith %}",
    "{% if ''.__class__ %}x{% endif %}",
    "{% call(x) contact.first_name() %}{% endcall %}",
    "{% filter upper %}x{% endfilter %}{{ x.__class__ }}",
    "{% import 'os' as os %}{{ os.popen('id') }}",
    "{% from 'os' import popen %}",
    "{% include '/etc/passwd' %}",
    "{% extends '/etc/passwd' %}",
    "{{ loop.__class__ }}",
    "{{ caller() }}",
    "{{ debug() }}",
    "{% debug %}",
    "{% do contact.update({'first_name': 'x'}) %}",
]  # fmt: skip


@pytest.mark.parametrize("source", ATTACKS)
def test_a_template_reaches_nothing_but_its_values(source: str) -> None:
    """1.3.7: sandbox, a bounded language, and no methods at all."""
    context = message_context(
        personal={"first_name": "Ana"}, contact={}, shop=SHOP, topic_title="Offers", unsubscribe_url="x", data={}
    )
    with pytest.raises((TemplateInvalid, RenderFailed)):
        Compiled("body.html", source, html=True).render(context)


@pytest.mark.parametrize("source", [*ATTACKS, "{{ 7*7 }}", "{# x", "{% raw %}"])
def test_what_a_person_is_called_is_never_a_template(source: str) -> None:
    """1.3.7: a value is data, whatever it looks like."""
    context = message_context(
        personal={"first_name": source}, contact={}, shop=SHOP, topic_title="Offers", data={},
        unsubscribe_url="https://shop.example/u/x",
    )  # fmt: skip
    content = Template("email", "t", FILES).render(context, "en")

    assert " ".join(source.split()) in content.subject
    assert "49" not in content.subject.replace(source, "")


@pytest.mark.parametrize("value", CRLF)
def test_nothing_breaks_out_of_a_header_of_a_mail(value: str) -> None:
    """1.3.11: names, titles, subjects and the shop's own words stay on their line, or the mail is refused."""
    message_id = UUID(int=7)
    shop = SHOP.model_copy(update={"name": value})
    headers = headers_for(
        message_id=message_id, shop=shop, class_="marketing", topic="offers", topic_title=value, campaign=value,
        unsubscribe_url="https://shop.example/u/x",
    )  # fmt: skip
    assert all(f"{name}{text}".isprintable() for name, text in headers)
    context = message_context(
        personal={"first_name": value, "last_name": value}, contact={}, shop=shop, topic_title=value, data={},
        unsubscribe_url="https://shop.example/u/x",
    )  # fmt: skip
    content = Template("email", "t", FILES).render(context, "en")
    mail = to_mime(
        content=content, headers=headers, from_name=value, from_email=SHOP.from_email, to="ana@people.example",
        to_name=value, at=datetime(2026, 12, 1, tzinfo=UTC),
    )  # fmt: skip
    read = email.message_from_bytes(mail, policy=email.policy.default)

    assert not {"bcc", "x"} & {name.lower() for name in read}
    assert len(read.get_all("To", [])) == len(read.get_all("From", [])) == len(read.get_all("Subject", [])) == 1
    assert len(read["To"].addresses) == 1


@pytest.mark.parametrize("value", [*CRLF[:9], "a@b.example>\r\nBcc: <c@d.example", "a@b.example, c@d.example"])
def test_an_address_with_more_than_an_address_in_it_is_refused_or_still_one(value: str) -> None:
    """1.3.11."""
    content = Content("Hi", "", None, "Hello", "en")
    try:
        mail = to_mime(content=content, headers=[], from_name="Shop", from_email=SHOP.from_email, to=value,
                       at=datetime(2026, 12, 1, tzinfo=UTC))  # fmt: skip
    except Refused:
        return
    read = email.message_from_bytes(mail, policy=email.policy.default)

    assert value == "a@b.example, c@d.example", "everything else is refused"
    assert [(one.username, one.domain) for one in read["To"].addresses] == [("a@b.example, c", "d.example")]
    assert "Bcc" not in read


FORMULAS = [
    "=1+1",
    "+447700900123",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\x00=1",
    '=HYPERLINK("https://evil.example")',
]


@pytest.mark.parametrize("cell", FORMULAS)
def test_no_cell_of_an_export_is_a_formula(cell: str) -> None:
    """1.2.10: what a spreadsheet would compute gets a quote in front; phone numbers stay as they are behind it."""
    assert reports.harmless(cell) == f"'{cell}"
    assert reports.harmless("Ana = 1") == "Ana = 1"
    for column in ("contact", "provider_ref", "campaign", "topic"):  # what is not ours to choose
        assert reports._cell(column, cell) == f"'{cell}"


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20), max_size=5))
def test_rejected_rows_come_back_as_text_in_rfc_4180(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    """1.2.10: cells of the import itself, with quotes and line ends in them."""
    path = tmp_path_factory.mktemp("r") / "rejects.csv"
    with Rejects(path, ["a"]) as rejects:
        rejects.add(2, "=reason", cells)
    with path.open(encoding="utf-8", newline="") as file:
        _, row = csv.reader(file)

    assert row[1] == "'=reason"
    assert [cell.removeprefix("'") for cell in row[2:]] == [cell.removeprefix("'") for cell in cells]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in row[2:])


@given(st.text(max_size=60))
def test_what_is_logged_stays_one_line(value: str) -> None:
    """16.4.1: no value begins a line of its own, and none sends a terminal its commands."""
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        logs.configure("info", json=True)
        structlog.get_logger("x").info("http.request", route=value, **{"detail": value})
    structlog.reset_defaults()
    lines = stream.getvalue().split("\n")

    assert len(lines) == 2
    assert lines[1] == ""
    assert json.loads(lines[0])["event"] == "http.request"
    assert "\x1b" not in lines[0]
    assert "\r" not in lines[0]


@pytest.mark.parametrize(
    "text",
    ["stop " * 5_000, "s" * 50_000, "unsubscribe me " + "a " * 20_000 + "!", "don't " * 8_000 + "stop", "é" * 50_000],
)
def test_no_text_of_a_person_takes_long_to_read(text: str) -> None:
    """1.3.12: reading what somebody texted takes linear time."""
    began = time.thread_time()
    read_text(text)

    assert time.thread_time() - began < 2


def test_a_file_that_is_named_in_a_template_is_not_read(tmp_path: Path) -> None:
    """5.3.2: a template is what is in its folder; no name in it is a path."""
    secret = tmp_path / "secret.txt"
    secret.write_text("geheim")
    for source in (f"{{% include '{secret}' %}}", f"{{{{ '{secret}'|read }}}}", f"{{% import '{secret}' as x %}}"):
        with pytest.raises((TemplateInvalid, RenderFailed)) as refused:
            Compiled("body.html", source, html=True).render({})
        assert "geheim" not in str(refused.value)
