"""How long the texts of a campaign are, without rendering each: what they take of their lane's rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import Connection, text

from dispatcher.content import Template
from dispatcher.content.samples import sample_contexts
from dispatcher.content.sandbox import RenderFailed
from dispatcher.definitions import ShopIdentity
from dispatcher.frozen_templates import load_template
from dispatcher.rates.units import parts_of
from dispatcher.runs import Run
from dispatcher.shop import load_shop


def parts_each(connection: Connection, run: Run, contact_ids: Sequence[int]) -> float:
    """Return how many parts an SMS to these contacts has on average.

    Each language is rendered once, for a person of whom almost nothing is known: names make some of them longer.
    """
    template, shop = load_template(connection, run.template_hash), load_shop(connection).shop
    speakers: Counter[str] = Counter()
    for row in connection.execute(_LOCALES, {"ids": list(contact_ids)}):
        speakers[template.variant(row.locale).locale] += row.contacts
    if not speakers:
        return 1.0
    parts = {locale: _parts(template, locale, shop, marketing=run.class_ == "marketing") for locale in speakers}
    return sum(parts[locale] * number for locale, number in speakers.items()) / speakers.total()


_LOCALES = text("SELECT locale, count(*) AS contacts FROM contact WHERE id = ANY(:ids) GROUP BY 1")


def _parts(template: Template, locale: str, shop: ShopIdentity, *, marketing: bool) -> int:
    _, empty = sample_contexts(locale=locale, marketing=marketing, shop=shop)
    try:
        return parts_of(template.compose(empty, locale), marketing=marketing)
    except RenderFailed:  # it needs what this sample has not
        return 1
