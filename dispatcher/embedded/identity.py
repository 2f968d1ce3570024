"""As whom PostgreSQL runs: it refuses root, so as root an unprivileged user is found for it."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dispatcher.embedded.places import i_am_root
from dispatcher.embedded.process import Identity
from dispatcher.errors import Refused

_PREFERRED = ("dispatcher", "postgres", "nobody")
_INSTEAD = "run as an ordinary user, or set DISPATCHER_DATABASE_URL"


def identity_for(data: Path) -> Identity | None:
    """Return the user for the server of this data folder (its owner, once it exists); None: ourselves."""
    if not i_am_root():
        _require_a_name()
        return None
    if data.is_dir():
        return _known(data.stat().st_uid)
    for name in _PREFERRED:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Identity(found.pw_name, found.pw_uid, found.pw_gid)
    raise Refused(f"PostgreSQL does not run as root, and none of the users {', '.join(_PREFERRED)} exists: {_INSTEAD}")


def _known(uid: int) -> Identity:
    try:
        found = pwd.getpwuid(uid)
    except KeyError as error:
        raise Refused(f"PostgreSQL's data belong to user {uid}, who does not exist here: {_INSTEAD}") from error
    return Identity(found.pw_name, found.pw_uid, found.pw_gid)


def _require_a_name() -> None:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise Refused(
            f"PostgreSQL needs a user with a name, and user {os.geteuid()} has none: add it to /etc/passwd, "
            "or set DISPATCHER_DATABASE_URL"
        ) from error


def output_as(identity: Identity | None, argv: Sequence[str | Path]) -> str | None:
    """Return what the command prints when that user runs it, or None if it cannot: the kernel's answer, not a guess."""
    try:
        done = subprocess.run(
            [os.fspath(part) for part in argv],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
            user=identity.uid if identity else None,
            group=identity.gid if identity else None,
            extra_groups=[] if identity else None,
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def can_enter(identity: Identity | None, folder: Path) -> bool:
    return output_as(identity, ["/bin/sh", "-c", 'cd -- "$1"', "sh", folder]) is not None
