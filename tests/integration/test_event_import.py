"""Events from files: JSON lines and order lines, once each, whatever stands between them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import random
import re
import runpy
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dispatcher.clock import read_now
from dispatcher.errors import InvalidDefinition, NotFound, Refused
from dispatcher.imports import events as importing
from dispatcher.imports import json_lines, order_file
from dispatcher.imports.events import EventReport, import_events
from dispatcher.imports.mapping import read_mapping
from dispatcher.keys import KeyRing

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RETAIL = EXAMPLES / "maps" / "online-retail.yaml"
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"


def event(key: str, at: str = "2011-12-01T08:26:00Z", **changes: Any) -> str:
    items = [{"interest": "christmas", "quantity": 6, "value": 15.3}]
    return json.dumps(
        {"source_key": key, "contact": "1", "name": "order.placed", "occurred_at": at, "items": items} | changes
    )


def write(path: Path, *lines: str) -> Path:
    content = "\n".join(lines).encode() + b"\n"
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def contents(database: Engine) -> list[Any]:
    """Everything an import could change, as it is stored."""
    with database.connect() as connection:
        return [
            connection.execute(text(f"SELECT xmin::text, t.* FROM {table} AS t ORDER BY 1, 2, 3")).all()
            for table in ("event", "event_item", "interest", "contact_alias")
        ]


def told(database: Engine) -> dict[str, tuple[str, datetime, Decimal, int]]:
    """Key -> name, time, value and number of items of every event."""
    query = text("""
        SELECT source_key, name, occurred_at, value,
               (SELECT count(*) FROM event_item WHERE event_id = event.id) AS items
        FROM event
    """)
    with database.connect() as connection:
        return {row.source_key: (row.name, row.occurred_at, row.value, row.items) for row in connection.execute(query)}


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
def test_json_lines_come_in_once(database: Engine, key_ring: KeyRing, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "\ufeff" + event("1"), "", event("2", contact="2"), event("3", items=[]))

    first = import_events(database, key_ring, path)
    before = contents(database)
    again = import_events(database, key_ring, path)

    assert first == EventReport(read=3, new=3, items=2, contacts_created=2)
    assert again == EventReport(read=3, same=3)
    assert contents(database) == before


def test_a_bad_line_is_set_aside_and_the_others_come_in(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    bad = [b"{", b"\xff\xfe", b"\x00", b"[]", b'{"a": 1, "a": 2}', b'{"value": NaN}', b"[" * 100_000, b"x" * 3_000_000]
    lines = [event("1").encode()]
    for number, line in enumerate(bad, 2):
        lines += [line, event(str(number)).encode()]
    path.write_bytes(b"\n".join(lines))

    report = import_events(database, key_ring, path, rejects=tmp_path / "rejects.csv")

    assert (report.read, report.new, report.rejected) == (len(lines), len(bad) + 1, len(bad))
    assert [row[0] for row in rows_of(tmp_path / "rejects.csv")] == [str(number) for number in range(2, len(lines), 2)]
    assert all(row[1] for row in rows_of(tmp_path / "rejects.csv"))


def test_a_line_of_exactly_the_longest_length_is_read(
    database: Engine, key_ring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "LONGEST_LINE", len(event("1")) + 1)
    path = write(tmp_path / "events.jsonl", event("1"), event("22"), event("3"))

    report = import_events(database, key_ring, path)

    assert (report.read, report.new, report.rejected) == (3, 2, 1)


def test_another_body_under_a_known_key_is_refused_with_its_line(
    database: Engine, key_ring: KeyRing, tmp_path: Path
) -> None:
    path = write(tmp_path / "events.jsonl", event("1"), event("1", value=3), event("2"))

    report = import_events(database, key_ring, path, rejects=tmp_path / "rejects.csv")

    assert (report.new, report.refused, report.rejected) == (2, 1, 0)
    assert rows_of(tmp_path / "rejects.csv") == [["2", "source_key 1 is already recorded with another body"]]


@pytest.mark.parametrize("mapped", [False, True])
def test_all_times_are_shifted_so_that_the_newest_is_then(
    database: Engine, key_ring: KeyRing, tmp_path: Path, mapped: bool
) -> None:
    then = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
    if mapped:
        path = write(
            tmp_path / "orders.csv",
            HEADER,
            "1,A,CARD,1,2011-12-01 08:26:00,1,17850.0,UK",
            "2,A,CARD,1,2011-12-03 08:26:00,1,17850.0,UK",
            "2,A,CARD,1,2011-12-03 08:27:00,1,17850.0,UK",
            "3,A,CARD,1,2011-12-09 00:00:00,1,,UK",
        )
    else:
        bad = event("3", "2011-12-09T00:00:00Z", name="")
        path = write(tmp_path / "e.jsonl", event("1"), event("2", "2011-12-03T08:26:00Z"), bad)
    mapping = read_mapping(RETAIL) if mapped else None

    for _ in range(2):
        report = import_events(database, key_ring, path, mapping=mapping, rebase=then)

    assert (report.new, report.same) == (0, 2)
    assert {key: at for key, (_, at, *_) in told(database).items()} == {"1": then - timedelta(days=2), "2": then}


def test_nothing_is_rebased_into_the_future(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    with database.connect() as connection:
        far = read_now(connection) + timedelta(days=2)

    with pytest.raises(Refused, match="into the future"):
        import_events(database, key_ring, write(tmp_path / "e.jsonl", event("1")), rebase=far)


def test_lines_of_one_order_are_gathered_wherever_they_stand(
    database: Engine, key_ring: KeyRing, tmp_path: Path
) -> None:
    lines = [
        "536365,85123A,CHRISTMAS HEART,6,2010-12-01 08:27:00,2.55,17850.0,United Kingdom",
        'C536379,22139,"CUSHION, ""RETRO""",-1,2010-12-01 09:41:00,27.5,14527.0,United Kingdom',
        "536366,POST,POSTAGE,1,2010-12-01 08:28:00,18,17850.0,France",
        "536367,84879,BIRD ORNAMENT,0,2010-12-01 08:34:00,1.69,13047.0,United Kingdom",
        "536368,84879,BIRD ORNAMENT,32,2010-12-01 08:34:00,1.69,,United Kingdom",
        "536369,84879,BIRD ORNAMENT,many,2010-12-01 08:34:00,1.69,13047.0,United Kingdom",
        "536365,71053,METAL LANTERN,2,2010-12-01 08:26:00,3.39,17850.0,United Kingdom",
    ]
    report = import_events(
        database, key_ring, write(tmp_path / "o.csv", HEADER, *lines), mapping=read_mapping(RETAIL),
        rejects=tmp_path / "rejects.csv",
    )  # fmt: skip

    assert report == EventReport(
        read=7, new=2, items=3, rejected=1, contacts_created=2, rejects_file=tmp_path / "rejects.csv",
        left_out=report.left_out,
    )  # fmt: skip
    assert report.left_out == {"non_product": 1, "not_positive": 1, "guest": 1}
    assert told(database) == {
        "536365": ("order.placed", datetime(2010, 12, 1, 8, 26, tzinfo=UTC), Decimal("22.08"), 2),
        "C536379": ("order.refunded", datetime(2010, 12, 1, 9, 41, tzinfo=UTC), Decimal("27.5"), 1),
    }
    assert rows_of(tmp_path / "rejects.csv") == [["7", "quantity is not a number below 1e+15"]]


def test_the_order_of_the_lines_makes_no_other_order(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    lines = [f"{n % 3},A{n},CARD,{n + 1},2011-12-01 08:{n:02}:00,1.1,{n % 3 + 1}.0,UK" for n in range(30)]
    mapping = read_mapping(RETAIL)
    import_events(database, key_ring, write(tmp_path / "o.csv", HEADER, *lines), mapping=mapping)
    before = contents(database)

    random.Random(1).shuffle(lines)
    again = import_events(database, key_ring, write(tmp_path / "o.csv", HEADER, *lines), mapping=mapping)

    assert (again.new, again.same) == (0, 3)
    assert contents(database) == before


def test_an_order_of_two_customers_keeps_the_first(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    path = write(
        tmp_path / "o.csv",
        HEADER,
        "1,A,CARD,1,2011-12-01 08:26:00,1,200.0,UK",
        "1,X,CARD,1,2011-12-01 08:26:00,1,100.0,UK",
        "1,Y,CARD,1,2011-12-01 08:26:00,1,200.0,UK",
    )

    report = import_events(database, key_ring, path, mapping=read_mapping(RETAIL), rejects=tmp_path / "rejects.csv")

    assert (report.new, report.items, report.rejected) == (1, 2, 1)
    assert rows_of(tmp_path / "rejects.csv") == [["3", "1 is of another contact or kind on line 2"]]


def test_a_key_that_gathers_half_the_file_is_no_order(
    database: Engine, key_ring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_file, "MOST_ITEMS", 3)
    lines = ["1,A,CARD,1,2011-12-01 08:26:00,1,200.0,UK"] * 4 + ["2,A,CARD,1,2011-12-01 08:26:00,1,200.0,UK"] * 3

    report = import_events(
        database, key_ring, write(tmp_path / "o.csv", HEADER, *lines), mapping=read_mapping(RETAIL)
    )  # fmt: skip

    assert (report.new, report.items, report.rejected) == (1, 3, 4)


def test_pages_of_any_size_give_the_same(
    database: Engine, key_ring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{n % 23},A,CARD,1,2011-12-01 08:26:00,1.1,{n % 23 % 5}.0,UK" for n in range(200)]
    path = write(tmp_path / "o.csv.gz", HEADER, *lines)
    monkeypatch.setattr(importing, "CONTACTS_A_PAGE", 2)
    monkeypatch.setattr(importing, "ITEMS_A_PAGE", 10)
    seen: list[tuple[int, int]] = []

    report = import_events(
        database, key_ring, path, mapping=read_mapping(RETAIL), progress=lambda done, whole: seen.append((done, whole))
    )

    assert (report.new, report.items, report.contacts_created) == (23, 200, 5)
    assert seen == sorted(seen)
    assert seen[-1] == (2 * path.stat().st_size, 2 * path.stat().st_size)


def test_a_csv_without_a_map_is_told_what_is_missing(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"--map FILE\.yaml"):
        import_events(database, key_ring, write(tmp_path / "o.csv.gz", HEADER))


def test_a_file_that_cannot_be_read_is_named(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no file .*none\.jsonl"):
        import_events(database, key_ring, tmp_path / "none.jsonl")
    with pytest.raises(Refused, match="cannot be read"):
        import_events(database, key_ring, tmp_path)
    path = write(tmp_path / "cut.jsonl.gz", *(event(str(number)) for number in range(2_000)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Refused, match=r"cut\.jsonl\.gz is damaged"):
        import_events(database, key_ring, path)


def test_a_map_for_other_columns_is_refused(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinition, match=r"the column InvoiceNo, which o\.csv does not have"):
        import_events(database, key_ring, write(tmp_path / "o.csv", "a,b", "1,2"), mapping=read_mapping(RETAIL))


def test_the_demo_s_shop_comes_in_whole(database: Engine, key_ring: KeyRing) -> None:
    report = import_events(
        database, key_ring, EXAMPLES / "shop" / "orders.csv.gz", mapping=read_mapping(RETAIL),
        rebase=datetime(2026, 1, 31, tzinfo=UTC),
    )  # fmt: skip

    assert (report.rejected, report.refused) == (0, 0)
    assert report.read == report.items + report.left_out.total()
    assert set(report.left_out) == {"guest", "non_product"}
    assert report.contacts_created >= 300


def test_the_demo_s_shop_is_the_one_its_readme_describes() -> None:
    shop = EXAMPLES / "shop"
    listed = dict(
        reversed(line.split()) for line in re.findall(r"^[0-9a-f]{64}  \S+$", (shop / "README.md").read_text(), re.M)
    )

    assert listed == {name: hashlib.sha256((shop / name).read_bytes()).hexdigest() for name in listed}
    assert set(listed) == {"contacts.csv", "orders.csv.gz"}
    assert sum((shop / name).stat().st_size for name in listed) < 1_000_000


def test_the_demo_s_shop_can_be_cut_again(shared: Path, tmp_path: Path) -> None:
    cut = runpy.run_path(str(EXAMPLES / "shop" / "cut.py"))

    cut["main"](shared / "data" / "online-retail", tmp_path)

    shop = EXAMPLES / "shop"
    assert (tmp_path / "contacts.csv").read_bytes() == (shop / "contacts.csv").read_bytes()
    ours, theirs = (gzip.decompress((folder / "orders.csv.gz").read_bytes()) for folder in (tmp_path, shop))
    assert ours == theirs


CHRISTMAS = text("""
    SELECT count(DISTINCT contact_id) FROM event JOIN event_item ON event_id = event.id
    WHERE name = 'order.placed' AND 'christmas' = ANY(interests)
      AND occurred_at > timestamptz '2011-12-10 00:00Z' - interval '90 days' AND occurred_at <= '2011-12-10 00:00Z'
""")
BEEF = text("""
    SELECT count(*) FROM (
        SELECT contact_id FROM event JOIN event_item ON event_id = event.id
        WHERE name = 'order.placed' AND 'BEEF' = ANY(interests)
          AND occurred_at > timestamptz '2018-01-01 00:00Z' - interval '30 days' AND occurred_at <= '2018-01-01 00:00Z'
        GROUP BY contact_id HAVING count(DISTINCT event.id) >= 4
    ) AS found
""")


@pytest.mark.slow
def test_the_real_shops_come_in_and_give_the_known_sizes(database: Engine, key_ring: KeyRing, shared: Path) -> None:
    for folder, pattern in (("online-retail", "orders-*.csv.gz"), ("complete-journey", "transactions-*.csv.gz")):
        files = sorted((shared / "data" / folder).glob(pattern))
        mapping = read_mapping(EXAMPLES / "maps" / f"{folder}.yaml")
        for path in files:
            report = import_events(database, key_ring, path, mapping=mapping)
            assert (report.rejected, report.refused) == (0, 0)
            assert report.read == report.items + report.left_out.total()
        assert import_events(database, key_ring, files[-1], mapping=mapping).same == report.new

    with database.connect() as connection:
        assert connection.execute(CHRISTMAS).scalar_one() == 1345  # customers: nobody is merged without contacts.csv
        assert connection.execute(BEEF).scalar_one() == 41


def test_a_real_quarter_comes_in_and_gives_the_known_size(database: Engine, key_ring: KeyRing, shared: Path) -> None:
    path = shared / "data" / "online-retail" / "orders-2010q4.csv.gz"

    report = import_events(database, key_ring, path, mapping=read_mapping(RETAIL))

    assert (report.read, report.rejected, report.refused) == (28_969, 0, 0)
    assert report.read == report.items + report.left_out.total()
