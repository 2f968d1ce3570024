"""Keys: made once, needed for ever, and taken into use only by who works with them."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from dispatcher.errors import Refused
from dispatcher.keys import KeyRing, fingerprint_of, open_key_ring, parse_secret_keys


def secret() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def opened(database: Engine, home: Path, keys: str | None, *, adopt: bool = True) -> KeyRing:
    with database.begin() as connection:
        return open_key_ring(connection, home, keys, adopt=adopt)


def known(database: Engine) -> list[str]:
    with database.connect() as connection:
        return list(connection.execute(text("SELECT key_fingerprints FROM engine")).scalar_one())


def test_the_key_file_is_made_once_and_for_its_owner_alone(database: Engine, tmp_path: Path) -> None:
    first, second = opened(database, tmp_path, None), opened(database, tmp_path, None)

    assert (tmp_path / "secret_keys").stat().st_mode & 0o777 == 0o600
    assert first.address_hash("email", "a@b.example") == second.address_hash("email", "a@b.example")


def test_other_keys_than_the_database_s_are_refused_by_name(database: Engine, tmp_path: Path) -> None:
    mine = secret()
    opened(database, tmp_path, mine)

    with pytest.raises(Refused, match=fingerprint_of(parse_secret_keys(mine)[0])):
        opened(database, tmp_path, secret())


def test_a_lost_key_file_is_not_made_anew(database: Engine, tmp_path: Path) -> None:
    opened(database, tmp_path, None)
    (tmp_path / "secret_keys").unlink()

    with pytest.raises(Refused, match="backup"):
        opened(database, tmp_path, None)


def test_a_key_file_that_others_can_read_is_refused(database: Engine, tmp_path: Path) -> None:
    opened(database, tmp_path, None)
    (tmp_path / "secret_keys").chmod(0o644)

    with pytest.raises(Refused, match="chmod 600"):
        opened(database, tmp_path, None)


def test_a_new_key_in_front_wraps_and_the_old_one_still_opens(database: Engine, tmp_path: Path) -> None:
    old, new = secret(), secret()
    data_key, wrapped = opened(database, tmp_path, old).new_data_key()
    sealed = data_key.seal({"email": "a@b.example"})
    rotated = opened(database, tmp_path, f"{new},{old}")

    assert rotated.open_data_key(wrapped).open(sealed) == {"email": "a@b.example"}
    assert len(known(database)) == 2
    with pytest.raises(Refused):
        opened(database, tmp_path, old)


def test_who_only_looks_takes_no_new_key_into_use(database: Engine, tmp_path: Path) -> None:
    old, new = secret(), secret()
    opened(database, tmp_path, old)
    _, wrapped = opened(database, tmp_path, f"{new},{old}", adopt=False).new_data_key()

    assert known(database) == [fingerprint_of(parse_secret_keys(old)[0])]
    assert opened(database, tmp_path, old).open_data_key(wrapped).raw


@pytest.mark.parametrize("keys", ["", "short", "!!!", base64.b64encode(b"x" * 31).decode()])
def test_what_is_no_key_is_said_in_one_line(database: Engine, tmp_path: Path, keys: str) -> None:
    with pytest.raises(Refused):
        parse_secret_keys(keys)
