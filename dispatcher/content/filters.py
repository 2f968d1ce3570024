"""The filters templates may use.  Every one of them makes at most a little more than it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any

from jinja2 import Undefined, pass_context, pass_environment, pass_eval_context
from jinja2.environment import Environment
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, markup_join, str_join
from markupsafe import Markup, escape

MAX_ITEMS = 10_000  #: of one loop, list or range
MAX_VALUE_CHARS = 100_000  #: of one value made inside an expression

SCALARS = (str, int, float, Decimal, date, Undefined, type(None))

#: Jinja's own filters that cannot make much out of little, nor mark a value as safe HTML.
_KEPT = (
    "abs capitalize count d default dictsort e escape first float int items last length list lower max min reject "
    "rejectattr reverse select selectattr sort striptags title trim truncate unique upper urlencode wordcount"
)


class LimitReached(Exception):  # noqa: N818 - named for what it says
    """The template asks for more than any message needs; the text holds no value of a contact."""


class Sample(str):
    """A stand-in for data we cannot know while checking: any field, any item, a word and a number."""

    __slots__ = ()

    def part(self, name: object) -> Sample:
        return Sample(f"{self}.{name}" if self else str(name))

    def _always(self, _other: object) -> bool:
        return True

    __lt__ = __le__ = __gt__ = __ge__ = _always


def items_of(values: Any) -> list[Any]:
    """Return the items of something one can loop over."""
    if isinstance(values, Sample):
        return [values.part(1), values.part(2)]
    if isinstance(values, str):
        raise LimitReached("this is a text, not a list; it cannot be looped over")
    items = list(islice(values, MAX_ITEMS + 1))
    if len(items) > MAX_ITEMS:
        raise LimitReached(f"a list may have at most {MAX_ITEMS:,} items")
    return items


def flat(values: Any) -> Any:
    """Return a list or dict written in the template; not lists inside lists, which could grow without end."""
    for value in values.values() if isinstance(values, dict) else values:
        if not isinstance(value, SCALARS):
            raise LimitReached("a list written in a template holds texts and numbers only")
    return values


@pass_eval_context
def glued(eval_ctx: EvalContext, *parts: Any) -> str:
    """Return what `a ~ b` says."""
    return _join(eval_ctx, parts)


def _join(eval_ctx: EvalContext, parts: Iterable[Any]) -> str:
    parts = [part if isinstance(part, (str, Undefined)) else str(_scalar(part)) for part in parts]
    if sum(len(part) for part in parts if isinstance(part, str)) > MAX_VALUE_CHARS:
        raise LimitReached(f"a text made in a template may have at most {MAX_VALUE_CHARS:,} characters")
    return (markup_join if eval_ctx.autoescape else str_join)(parts)


def _scalar(value: Any) -> Any:
    if not isinstance(value, SCALARS):
        raise LimitReached("only texts and numbers can be joined")
    return value


@pass_eval_context
def join(eval_ctx: EvalContext, values: Any, separator: str = "", attribute: str | None = None) -> str:
    """Return the items with a separator between them."""
    items = items_of(values)
    if attribute is not None:
        items = [*map(make_attrgetter(eval_ctx.environment, attribute), items)]
    between = [part for item in items for part in (separator, item)][1:]
    return _join(eval_ctx, between)


@pass_environment
def map_(environment: Environment, values: Any, attribute: str) -> list[Any]:
    """Return one field of each item: `data.items|map(attribute="name")`."""
    return [*map(make_attrgetter(environment, attribute), items_of(values))]


def batch(values: Any, size: int, fill: str | None = None) -> Iterator[list[Any]]:
    """Return rows of `size` items, the last one filled up if `fill` is given."""
    if not 1 <= size <= 100:
        raise LimitReached("batch makes rows of 1 to 100 items")
    items = items_of(values)
    for start in range(0, len(items), size):
        row = items[start : start + size]
        yield row if fill is None else row + [fill] * (size - len(row))


@pass_environment
def sum_(environment: Environment, values: Any, attribute: str | None = None) -> Decimal:
    """Return the sum of numbers, or of one field of the items."""
    items = items_of(values)
    if attribute is not None:
        items = [*map(make_attrgetter(environment, attribute), items)]
    return sum((number(item) for item in items), Decimal(0))


def round_(value: Any, digits: int = 0) -> Decimal:
    """Return the number with 0 to 6 decimal places, halves away from zero."""
    if not 0 <= digits <= 6:
        raise LimitReached("round takes 0 to 6 decimal places")
    return _rounded(number(value), digits)


def _rounded(value: Decimal, digits: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-digits), rounding="ROUND_HALF_UP")


def number(value: Any) -> Decimal:
    """Return a number, or a text that says one, exactly."""
    if isinstance(value, Sample):
        return Decimal(1)
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise LimitReached("this value is not a number") from None
    if not found.is_finite() or abs(found.adjusted()) > 30:
        raise LimitReached("this number is out of range")
    return found


_GAP = "\N{NO-BREAK SPACE}"
#: Language -> (thousands separator, decimal mark, whether the currency stands first, what stands between).
_NUMBERS = {
    "en": (",", ".", True, ""),
    "pt": (".", ",", True, _GAP),
    "ro": (".", ",", False, _GAP),
    "es": (".", ",", False, _GAP),
    "de": (".", ",", False, _GAP),
    "fr": ("\N{NARROW NO-BREAK SPACE}", ",", False, _GAP),
}
_SYMBOLS = {"GBP": "£", "EUR": "€", "USD": "$", "BRL": "R$", "RON": "lei"}
_WITHOUT_CENTS = {"JPY", "KRW", "HUF", "CLP", "ISK", "VND"}

_DATES = {  # pattern, and the months' names
    "en": ("{day} {month} {year}",
           "January February March April May June July August September October November December"),
    "pt": ("{day} de {month} de {year}",
           "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro"),
    "ro": ("{day} {month} {year}",
           "ianuarie februarie martie aprilie mai iunie iulie august septembrie octombrie noiembrie decembrie"),
    "es": ("{day} de {month} de {year}",
           "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"),
    "de": ("{day}. {month} {year}",
           "Januar Februar März April Mai Juni Juli August September Oktober November Dezember"),
    "fr": ("{day} {month} {year}",
           "janvier février mars avril mai juin juillet août septembre octobre novembre décembre"),
}  # fmt: skip


def _language(context: Context) -> str:
    return str(context.get("locale") or "en").split("-")[0]


@pass_context
def money(context: Context, value: Any, currency: str = "GBP") -> str:
    """Return an amount as the reader's language writes it: `£1,234.50`, `1.234,50 €`."""
    thousands, mark, symbol_first, gap = _NUMBERS.get(_language(context), _NUMBERS["en"])
    exact = _rounded(number(value), 0 if currency in _WITHOUT_CENTS else 2)
    sign, amount = "-" if exact < 0 else "", _grouped(abs(exact), thousands, mark)
    if not symbol_first:
        return f"{sign}{amount}{gap}{_SYMBOLS.get(currency, currency)}"
    return f"{sign}{_SYMBOLS.get(currency) or currency + _GAP}{gap if currency in _SYMBOLS else ''}{amount}"


@pass_context
def plain_number(context: Context, value: Any, digits: int = 0) -> str:
    """Return a number as the reader's language writes it: `1,234`."""
    thousands, mark, *_ = _NUMBERS.get(_language(context), _NUMBERS["en"])
    return _grouped(round_(value, digits), thousands, mark)


def _grouped(amount: Decimal, thousands: str, mark: str) -> str:
    return f"{amount:,f}".translate({ord(","): thousands, ord("."): mark})


@pass_context
def long_date(context: Context, value: Any) -> str:
    """Return a day as the reader's language writes it: `5 December 2026`; takes dates and texts like 2026-12-05."""
    if isinstance(value, Sample):
        value = date(2026, 12, 5)
    if isinstance(value, Undefined):
        return str(value)  # raises, naming the variable
    if not isinstance(value, date):
        try:
            value = datetime.fromisoformat(str(value))
        except ValueError:
            raise LimitReached("this value is not a date; write it like 2026-12-05") from None
    return date_in(_language(context), value)


def date_in(language: str, day: date) -> str:
    """Return a day as a language (`en`, `pt-BR` ...) writes it."""
    pattern, months = _DATES.get(language.split("-")[0], _DATES["en"])
    return pattern.format(day=day.day, month=months.split()[day.month - 1], year=day.year)


def line_breaks(value: Any) -> Markup:
    """Return a text of several lines as HTML."""
    return Markup("<br>\n").join(escape(line) for line in str(value).splitlines())


def own_filters(*, html: bool) -> dict[str, Callable[..., Any]]:
    """Return every filter there is, for the HTML part or for plain text."""
    filters: dict[str, Callable[..., Any]] = {name: FILTERS[name] for name in _KEPT.split()}
    filters |= {
        "batch": batch,
        "date": long_date,
        "join": join,
        "map": map_,
        "money": money,
        "nl2br": line_breaks,
        "number": plain_number,
        "round": round_,
        "sum": sum_,
        "_flat": flat,
        "_glued": glued,
    }
    if not html:  # plain text knows no entities
        filters |= dict.fromkeys(("e", "escape", "nl2br"), str)
    return filters
