"""API keys: shown once, kept as a hash, revoked at once."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from dispatcher import api_keys
from dispatcher.api_keys import NotAuthenticated, NotPermitted
from dispatcher.errors import NotFound, Refused


def test_a_key_opens_what_its_scopes_say_and_nothing_else(connection: Connection) -> None:
    key = api_keys.create(connection, "shop", ["messages:write"])

    shop = api_keys.authenticate(connection, key)
    api_keys.require(shop, "messages:write")
    assert shop.name == "shop"
    with pytest.raises(NotPermitted, match="lacks the scope messages:read"):
        api_keys.require(shop, "messages:read")


def test_only_a_hash_of_the_key_is_kept(connection: Connection) -> None:
    key = api_keys.create(connection, "shop", ["messages:write"])

    assert connection.scalar(text("SELECT hash FROM api_key")) == hashlib.sha256(key.encode()).digest()
    assert key not in str(connection.execute(text("SELECT * FROM api_key")).all())
    assert key not in str(connection.execute(text("SELECT * FROM audit")).all())


def test_two_keys_differ_in_256_bits(connection: Connection) -> None:
    first, second = (api_keys.create(connection, name, ["runs:read"]) for name in ("a", "b"))

    assert first != second
    assert first.startswith("dsp_")
    assert len(first) == 4 + 43


def test_what_is_not_a_key_is_refused(connection: Connection) -> None:
    api_keys.create(connection, "shop", ["messages:write"])
    for wrong in ("", "dsp_", "dsp_" + "A" * 43, "Bearer x", "é" * 47, "\ud800", "x" * 100_000, "\0"):
        with pytest.raises(NotAuthenticated):
            api_keys.authenticate(connection, wrong)


def test_a_revoked_key_is_refused_like_an_unknown_one(connection: Connection) -> None:
    key = api_keys.create(connection, "shop", ["messages:write"])
    api_keys.revoke(connection, "shop")
    api_keys.revoke(connection, "shop")  # twice is fine

    with pytest.raises(NotAuthenticated) as revoked:
        api_keys.authenticate(connection, key)
    with pytest.raises(NotAuthenticated) as unknown:
        api_keys.authenticate(connection, "dsp_" + "A" * 43)
    assert str(revoked.value) == str(unknown.value)
    assert [key.revoked_at is None for key in api_keys.list_keys(connection)] == [False]


def test_revoking_a_key_that_never_was_says_so(connection: Connection) -> None:
    with pytest.raises(NotFound, match="no key called shop"):
        api_keys.revoke(connection, "shop")


def test_a_name_is_never_used_twice(connection: Connection) -> None:
    api_keys.create(connection, "shop", ["messages:write"])
    api_keys.revoke(connection, "shop")

    with pytest.raises(Refused, match="take another name"):
        api_keys.create(connection, "shop", ["messages:write"])


@pytest.mark.parametrize(
    ("name", "scopes"), [("shop", ["all"]), ("shop", []), ("Shop!", ["runs:read"]), ("", ["runs:read"])]
)
def test_a_key_needs_a_name_and_known_scopes(connection: Connection, name: str, scopes: list[str]) -> None:
    with pytest.raises(Refused):
        api_keys.create(connection, name, scopes)


def test_its_use_is_noted_once_a_minute(database: Engine) -> None:
    with database.begin() as connection:
        key = api_keys.create(connection, "shop", ["messages:write"])

    def use() -> object:
        with database.begin() as connection:
            api_keys.authenticate(connection, key)
        with database.begin() as connection:
            return api_keys.list_keys(connection)[0].last_used_at

    first = use()
    assert first is not None
    assert use() == first
    with database.begin() as connection:
        connection.execute(text("UPDATE api_key SET last_used_at = last_used_at - interval '61 seconds'"))
    assert use() > first  # type: ignore[operator]


def test_a_request_does_not_wait_for_another_that_notes_the_same_key(database: Engine) -> None:
    with database.begin() as connection:
        key = api_keys.create(connection, "shop", ["messages:write"])
    with database.begin() as slow, database.begin() as quick:
        api_keys.authenticate(slow, key)  # holds the row until its transaction ends
        quick.execute(text("SET LOCAL lock_timeout = '100ms'"))

        assert api_keys.authenticate(quick, key).name == "shop"


def test_a_rotated_key_opens_with_both_secrets_until_the_old_ones_time_is_over(connection: Connection) -> None:
    old = api_keys.create(connection, "shop", ["messages:write"], requests_per_minute=7)
    new = api_keys.rotate(connection, "shop", grace=timedelta(hours=1))

    assert api_keys.authenticate(connection, old).id == api_keys.authenticate(connection, new).id
    assert api_keys.authenticate(connection, new).requests_per_minute == 7
    connection.execute(text("UPDATE api_key SET previous_until = clock_timestamp() - interval '1 second'"))
    with pytest.raises(NotAuthenticated):
        api_keys.authenticate(connection, old)
    assert api_keys.authenticate(connection, new).name == "shop"


def test_a_second_rotation_ends_the_secret_before_the_first(connection: Connection) -> None:
    first = api_keys.create(connection, "shop", ["messages:write"])
    second = api_keys.rotate(connection, "shop")
    third = api_keys.rotate(connection, "shop", grace=timedelta(0))

    for over in (first, second):
        with pytest.raises(NotAuthenticated):
            api_keys.authenticate(connection, over)
    assert api_keys.authenticate(connection, third).name == "shop"
    assert third not in str(connection.execute(text("SELECT * FROM audit")).all())


def test_a_revoked_or_unknown_key_is_not_rotated(connection: Connection) -> None:
    old = api_keys.create(connection, "shop", ["messages:write"])
    new = api_keys.rotate(connection, "shop")
    api_keys.revoke(connection, "shop")

    for secret in (old, new):
        with pytest.raises(NotAuthenticated):
            api_keys.authenticate(connection, secret)
    with pytest.raises(Refused, match="make a new one"):
        api_keys.rotate(connection, "shop")
    with pytest.raises(NotFound):
        api_keys.rotate(connection, "other")
    with pytest.raises(Refused, match="at most 30 days"):
        api_keys.rotate(connection, "shop", grace=timedelta(days=31))


def test_a_key_may_expire(connection: Connection) -> None:
    key = api_keys.create(connection, "shop", ["messages:write"], expires_after=timedelta(days=90))

    assert api_keys.authenticate(connection, key).expires_at is not None
    connection.execute(text("UPDATE api_key SET expires_at = clock_timestamp()"))
    with pytest.raises(NotAuthenticated):
        api_keys.authenticate(connection, key)
    with pytest.raises(NotAuthenticated):  # a rotation does not prolong its life
        api_keys.authenticate(connection, api_keys.rotate(connection, "shop"))
    with pytest.raises(Refused, match="expires at once"):
        api_keys.create(connection, "brief", ["messages:write"], expires_after=timedelta(0))
