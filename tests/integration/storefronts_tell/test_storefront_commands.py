"""The commands about storefronts: what is kept, what is asked for, and who may be forgotten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_workspace import write_workspace
from sqlalchemy import Engine, text
from storefronts import as_sent, shopify_checkout, shopify_customer

from dispatcher import cli, mailroom
from dispatcher.feedback import inbox
from dispatcher.keys import KeyRing


class House:
    def __init__(self, database: Engine, key_ring: KeyRing, capsys: pytest.CaptureFixture[str]) -> None:
        self.database, self.key_ring, self._capsys = database, key_ring, capsys

    def run(self, *arguments: str, code: int = 0) -> str:
        self._capsys.readouterr()
        assert cli.run(list(arguments)) == code
        out, err = self._capsys.readouterr()
        return out or err

    def told(self, topic: str, body: Any) -> None:
        with self.database.begin() as connection:
            inbox.store(connection, self.key_ring, "shopify", as_sent(body), headers={"x-shopify-topic": topic})
        inbox.sort_all(self.database, self.key_ring, mailroom.take)


@pytest.fixture
def house(
    database: Engine, database_url: str, key_ring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> House:  # fmt: skip
    settings = {"DATABASE_URL": database_url, "BROKER_URL": "redis://127.0.0.1:1", "HOME": str(tmp_path / "home")}
    for name, value in settings.items():
        monkeypatch.setenv(f"DISPATCHER_{name}", value)
    monkeypatch.chdir(write_workspace(tmp_path / "workspace"))
    house = House(database, key_ring, capsys)
    house.run("apply")
    return house


def test_what_was_not_understood_is_listed_shown_tried_again_and_dropped(house: House) -> None:
    house.told("customers/update", b"{ no JSON")

    [kept] = json.loads(house.run("inbox", "list", "--json"))
    number = str(kept["id"])
    assert (kept["topic"], kept["reason"][:8]) == ("customers/update", "not JSON")
    assert house.run("inbox", "show", number) == "{ no JSON\n"
    shown = json.loads(house.run("inbox", "show", number, "--json"))
    assert shown["headers"] == {"x-shopify-topic": "customers/update"}
    assert "1 requests not understood" in house.run("doctor", "--json", code=1)
    house.run("inbox", "retry", number)
    inbox.sort_all(house.database, house.key_ring, mailroom.take)
    house.run("inbox", "drop", number)
    assert json.loads(house.run("inbox", "list", "--json")) == []
    assert "no request" in house.run("inbox", "show", number, code=1)
    with house.database.connect() as connection:
        actions = connection.scalars(text("SELECT action FROM audit WHERE action LIKE 'inbox.%' ORDER BY id")).all()
    assert actions == ["inbox.shown", "inbox.shown", "inbox.retried", "inbox.dropped"]


def test_topics_are_counted(house: House) -> None:
    house.told("customers/update", shopify_customer())
    house.told("products/create", {"id": 1})

    counts = json.loads(house.run("storefront", "topics", "--json"))
    assert [(one["topic"], one["outcome"], one["requests"]) for one in counts] == [
        ("customers/update", "taken", 1), ("products/create", "unheeded", 1)]  # fmt: skip
    assert "products/create" in house.run("storefront", "topics")


def test_an_export_is_done_when_the_operator_says_so_and_a_shop_is_forgotten_after_a_word(house: House) -> None:
    house.told("customers/update", shopify_customer())
    house.told("checkouts/create", shopify_checkout(customer=None, email="guest@people.example"))
    wanted = {"customer": {"id": 77}, "data_request": {"id": 5}, "orders_requested": []}
    house.told("customers/data_request", wanted)
    house.told("shop/redact", {"shop_id": 1, "shop_domain": "s.myshopify.com"})

    export, shop = json.loads(house.run("storefront", "requests", "--json"))
    assert (export["contact"], export["state"], shop["kind"]) == ("shopify-77", "open", "shop_erasure")
    assert "2 asked for through the storefront" in house.run("doctor", "--json", code=1)
    house.run("storefront", "done", str(export["id"]))
    assert "was done by" in house.run("storefront", "done", str(export["id"]), code=1)
    assert "storefront erase" in house.run("storefront", "done", str(shop["id"]), code=1)
    assert "2 contacts are known only from shopify" in house.run("storefront", "erase", str(shop["id"]), code=1)
    assert house.run("storefront", "erase", str(shop["id"]), "--yes") == "2 contacts are being erased\n"
    assert json.loads(house.run("storefront", "requests", "--json")) == []
    assert len(json.loads(house.run("storefront", "requests", "--all", "--json"))) == 2
