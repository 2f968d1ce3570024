"""File locks: who looks whether one is held does not hold it."""

from __future__ import annotations

import os
from pathlib import Path

from dispatcher.embedded import locks


def test_two_who_look_at_once_do_not_see_each_other(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    looking = locks.open_lock(path)
    locks.share(looking)  # as `is_held` itself does for a moment

    assert not locks.is_held(path)
    os.close(looking)


def test_a_lock_is_held_for_as_long_as_its_holder_has_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not locks.is_held(path)
    holder = locks.open_lock(path)
    assert locks.try_exclusive(holder)

    assert locks.is_held(path)
    os.close(holder)
    assert not locks.is_held(path)
