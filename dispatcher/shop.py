"""What the shop decided, as every process reads it: from the database, where `apply` put it."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Connection, text

from dispatcher.definitions import Shop
from dispatcher.errors import Refused


def load_shop(connection: Connection) -> Shop:
    """Return the shop's definition; Refused if no workspace has been applied yet."""
    shop = find_shop(connection)
    if shop is None:
        raise Refused("no workspace has been applied yet: run dispatcher apply in the folder with dispatcher.toml")
    return shop


def find_shop(connection: Connection) -> Shop | None:
    """Return the shop's definition; None if no workspace has been applied yet."""
    stored = connection.execute(text("SELECT shop::text FROM engine")).scalar_one()
    return None if stored is None else _parse(stored)


def shop_name(connection: Connection) -> str | None:
    """Return what the shop calls itself; None if no workspace has been applied yet."""
    shop = find_shop(connection)
    return shop.shop.name if shop else None


@lru_cache(maxsize=16)
def _parse(stored: str) -> Shop:
    return Shop.model_validate_json(stored)
