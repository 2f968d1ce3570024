"""Two real shops, imported as they are, have segments of exactly the sizes that were computed apart from any engine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dispatcher import audience
from dispatcher.imports.contacts import import_contacts
from dispatcher.imports.events import import_events
from dispatcher.imports.mapping import read_mapping
from dispatcher.keys import KeyRing
from segments.definition import Segment

MAPS = Path(__file__).resolve().parents[2] / "examples" / "maps"


def orders(interest: str, least: int, within: str) -> dict[str, Any]:
    return {"event": "order.placed", "where": {"interest": interest}, "within": within, "count": {"gte": least}}


SHOPS: list[tuple[str, str, datetime, int, list[tuple[dict[str, Any], int]]]] = [
    (
        "online-retail",
        "orders-*.csv.gz",
        datetime(2011, 12, 10, tzinfo=UTC),
        2869,
        [
            (orders("christmas", 1, "90d"), 1330),
            (orders("kitchen_and_dining", 2, "180d"), 1093),
            (orders("garden_and_outdoor", 1, "365d"), 1376),
            (orders("kids_and_toys", 1, "30d"), 405),
            (orders("bath_and_wellness", 1, "90d"), 354),
            ({"event": "order.placed", "last": {"older_than": "180d"}}, 558),
            ({"event": "order.placed", "sum": "value", "gte": 5000}, 165),
        ],
    ),
    (
        "complete-journey",
        "transactions-*.csv.gz",
        datetime(2018, 1, 1, tzinfo=UTC),
        1089,
        [
            (orders("FLORAL", 1, "90d"), 171),
            (orders("COSMETICS", 2, "180d"), 138),
            (orders("FROZEN PIZZA", 3, "60d"), 130),
            (orders("BEEF", 4, "30d"), 42),
            (orders("NUTRITION", 3, "90d"), 121),
            (orders("CHEESE", 40, "365d"), 33),
        ],
    ),
]


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize(("shop", "files", "as_of", "contacts", "rules"), SHOPS, ids=[shop[0] for shop in SHOPS])
def test_every_segment_has_its_exact_size(
    database: Engine,
    key_ring: KeyRing,
    shared: Path,
    shop: str,
    files: str,
    as_of: datetime,
    contacts: int,
    rules: list[tuple[dict[str, Any], int]],
) -> None:
    data = shared / "data" / shop
    import_contacts(database, key_ring, data / "contacts.csv", topics={"email": ["offers"], "sms": ["offers"]})
    for path in sorted(data.glob(files)):
        import_events(database, key_ring, path, mapping=read_mapping(MAPS / f"{shop}.yaml"))
    segments = [Segment.model_validate({"name": "rule", "match": match}) for match, _ in rules]

    with database.connect() as connection:
        living = connection.scalar(text("SELECT count(*) FROM contact WHERE merged_into IS NULL"))
        sizes = [audience.count(connection, segment, as_of) for segment in segments]

    assert living == contacts
    assert sizes == [size for _, size in rules]
