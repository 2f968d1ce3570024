"""Import every module from an installed wheel, and compare its files with the repository's: `import_rooms.py FOLDER`.

Many top-level names are easy to forget in the list of what a wheel holds.
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("dispatcher", "segments", "workers", "scheduler", "templates", "migrations", "examples")
RUN_BY_OTHERS = ("__main__", "migrations.env", "migrations.versions")  # by `python -m` and by Alembic


def missing_files(installed: Path) -> list[str]:
    """Return the files of the rooms that git knows and the wheel does not hold."""
    paths = [room for name in ROOMS for room in (name, f"{name}.py") if (REPOSITORY / room).exists()]
    known = subprocess.run(["git", "ls-files", "-z", *paths], cwd=REPOSITORY, capture_output=True, check=True).stdout
    files = [name for name in known.decode().split("\0") if name and not Path(name).name.startswith(".")]
    return [name for name in files if not (installed / name).exists()]


def modules(installed: Path) -> list[str]:
    """Return the name of every module in the rooms."""
    found = [name for name in ROOMS if (installed / f"{name}.py").exists() or (installed / name).is_dir()]
    for name in list(found):
        if (installed / name).is_dir():
            found += [each.name for each in pkgutil.walk_packages([str(installed / name)], f"{name}.")]
    return [name for name in found if not any(part in name for part in RUN_BY_OTHERS)]


def main() -> int:
    installed = Path(sys.argv[1]).resolve()
    sys.path[:] = [
        str(installed),
        *(entry for entry in sys.path if Path(entry).resolve() not in (REPOSITORY, Path(__file__).parent)),
    ]
    if missing := missing_files(installed):
        print("the wheel lacks: " + ", ".join(missing), file=sys.stderr)
        return 1
    names = modules(installed)
    for name in names:
        module = importlib.import_module(name)
        place = Path(module.__file__ or next(iter(module.__path__)))
        if installed not in place.resolve().parents and place.resolve() != installed / name:
            print(f"{name} was imported from {place}, not from the wheel", file=sys.stderr)
            return 1
    print(f"{len(names)} modules imported from the wheel")
    return 0


if __name__ == "__main__":
    sys.exit(main())
