"""A template can neither reach out of the sandbox nor take much time, memory or text."""

from __future__ import annotations

import resource
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.content.sandbox import MAX_OUTPUT_CHARS, Compiled, RenderFailed, TemplateInvalid

SECONDS = 20.0  # a bound on what has none, not a measurement: without it these take hours


def render(source: str, *, html: bool = True, **values: Any) -> str:
    return Compiled("body.html", source, html=html).render(values)


def _again(start: str, step: str) -> str:
    """Return a template that takes a step sixty times."""
    loop = f"{{% for i in range(60) %}}{{% set n.x = {step} %}}{{% endfor %}}"
    return f"{{% set n = namespace(x={start}) %}}{loop}{{{{ n.x }}}}"


GROWING = {
    "a product of texts": "{{ 'x' * 10**9 }}",
    "a product of lists": "{{ ([1] * 10**9)|length }}",
    "a huge power": "{{ 9**9**9 }}",
    "squares of squares": _again("9", "n.x * n.x"),
    "a wide format": "{{ '%1000000000s' % 1 }}",
    "three loops in each other": "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "a huge range": "{% for a in range(10**9) %}{% endfor %}",
    "a text joined to itself": _again("'ab'", "n.x ~ n.x"),
    "a text added to itself": _again("'ab'", "n.x + n.x"),
    "lists in lists": _again("[1]", "[n.x, n.x]") + "{% set m = n.x %}" + _again("[1]", "[n.x, n.x]"),
    "much text": "{% for i in range(9000) %}" + "x" * 1000 + "{% endfor %}",
    "sorting again and again": "{% for a in range(10000) %}{% set y = range(10000)|sort|reverse|list %}{% endfor %}",
    "sorting line by line": "{% set a = range(10000)|sort %}" * 800,
    "a long join": "{{ range(10000)|join('x' * 1) }}{{ range(10000)|join('" + "x" * 1000 + "') }}",
    "wide rows": "{{ [1]|batch(10**9, 0)|list|length }}",
    "many decimals": "{{ 1.5|round(10**9) }}",
    "lists in one sum": "{{ [[1]]|sum(start=[]) }}",
    "deep parentheses": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "deep conditions": "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "a long file": "{{ shop }}" * 19_000,
}


@pytest.mark.parametrize("source", GROWING.values(), ids=GROWING.keys())
def test_whatever_grows_is_stopped_soon(source: str) -> None:
    started, before = time.thread_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises((RenderFailed, TemplateInvalid)):
        render(source, shop="x")

    assert time.thread_time() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


REACHING = {
    "a class": "{{ ''.__class__ }}",
    "a class by subscript": "{{ ''['__class__'] }}",
    "a class by filter": "{{ ''|attr('__class__') }}",
    "a method": "{{ 'x'.upper() }}",
    "a dictionary's method": "{{ contact.keys() }}",
    "format": "{{ '{0.__class__}'.format(1) }}",
    "a macro": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "an include": "{% include 'meta.yaml' %}",
    "an import": "{% import 'x' as y %}",
    "an extends": "{% extends 'x' %}",
    "a block": "{% block x %}{% endblock %}",
    "a captured text": "{% set x %}y{% endset %}",
    "escaping switched off": "{% autoescape false %}{{ contact.first_name }}{% endautoescape %}",
    "a value called safe": "{{ contact.first_name|safe }}",
    "filler text": "{{ lipsum(5) }}",
    "a recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "our own counter": "{{ [1]|_turns(0) }}",
    "the environment": "{{ self._TemplateReference__context }}",
}


@pytest.mark.parametrize("source", REACHING.values(), ids=REACHING.keys())
def test_nothing_outside_the_values_can_be_reached(source: str) -> None:
    with pytest.raises((RenderFailed, TemplateInvalid)):
        render(source, contact={"first_name": "Ana"})


def test_an_unknown_variable_is_named_with_its_line() -> None:
    with pytest.raises(RenderFailed, match=r"^body\.html:2: contact\.frist_name is not known$"):
        render("Hello\n{{ contact.frist_name }}", contact={"first_name": "Ana"})


@pytest.mark.parametrize(
    "source",
    [
        "{{ contact[contact.first_name] }}",
        "{{ contact.first_name|int + contact.first_name }}",
        "{{ contact.first_name|date }}",
        "{{ contact.first_name|money }}",
        "{{ contact.first_name|sum }}",
        "{{ 1 // contact.first_name|int }}",
        "{{ contact.first_name / 2 }}",
        "{{ contact.first_name|round }}",
        "{{ contact.first_name|batch(2) }}",
    ],
)
def test_an_error_never_repeats_a_value(source: str) -> None:
    with pytest.raises(RenderFailed) as failure:
        render(source, contact={"first_name": "Secretname"})

    assert "secretname" not in str(failure.value).lower()
    assert failure.value.line == 1
    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__


def test_a_broken_file_is_named_with_its_line() -> None:
    with pytest.raises(TemplateInvalid, match=r"^body\.html:3: "):
        Compiled("body.html", "one\ntwo\n{% if %}", html=True)


def test_a_field_called_like_a_method_is_the_field() -> None:
    items = [{"name": "Lantern"}, {"name": "Mug"}]

    assert render("{% for item in data.items %}{{ item.name }} {% endfor %}", data={"items": items}) == "Lantern Mug "


def test_a_loop_knows_its_length_and_where_it_is() -> None:
    source = "{% for x in data.l %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}"

    assert render(source, data={"l": ["abc"] * 3}) == "1/3,2/3,3/3"


def test_nothing_is_printed_for_a_value_that_is_null() -> None:
    assert render("[{{ data.discount }}]", data={"discount": None}) == "[]"


def test_a_list_is_not_printed_as_python_writes_it() -> None:
    with pytest.raises(RenderFailed, match="loop over a list"):
        render("{{ data }}", data={"a": 1})


def test_output_may_be_long_but_not_endless() -> None:
    assert len(render("{{ data }}", data="x" * MAX_OUTPUT_CHARS)) == MAX_OUTPUT_CHARS
    with pytest.raises(RenderFailed, match="longer than"):
        render("{{ data }}", data="x" * (MAX_OUTPUT_CHARS + 1))


@given(name=st.text())
def test_a_value_is_never_read_as_template_or_html(name: str) -> None:
    rendered = render('<p title="{{ n }}">{{ n }}</p>', n="{{ 7*7 }}{% raw %}<script>\"'" + name)

    assert "<script" not in rendered
    assert "49" not in rendered.replace(name, "")
    assert rendered.count("<") == 2
    assert rendered.count('"') == 2


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("en", "£1,234.50 -€0.13 CHF\xa05.00 5 December 2026 12,345"),
        ("en-GB", "£1,234.50 -€0.13 CHF\xa05.00 5 December 2026 12,345"),
        ("pt-BR", "£\xa01.234,50 -€\xa00,13 CHF\xa05,00 5 de dezembro de 2026 12.345"),
        ("ro", "1.234,50\xa0£ -0,13\xa0€ 5,00\xa0CHF 5 decembrie 2026 12.345"),
        ("de", "1.234,50\xa0£ -0,13\xa0€ 5,00\xa0CHF 5. Dezember 2026 12.345"),
        ("fr", "1\u202f234,50\xa0£ -0,13\xa0€ 5,00\xa0CHF 5 décembre 2026 12\u202f345"),
        ("es", "1.234,50\xa0£ -0,13\xa0€ 5,00\xa0CHF 5 de diciembre de 2026 12.345"),
    ],
)
def test_amounts_and_days_are_written_as_the_reader_does(locale: str, expected: str) -> None:
    amounts = "{{ 1234.5|money }} {{ '-0.125'|money('EUR') }} {{ 5|money('CHF') }}"
    source = amounts + " {{ '2026-12-05'|date }} {{ 12345|number }}"

    assert render(source, html=False, locale=locale) == expected
