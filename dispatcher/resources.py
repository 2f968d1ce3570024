"""The files that travel with the program: the same place in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from dispatcher.errors import Refused

_ROOT = Path(__file__).resolve().parents[1]


def resource(*parts: str) -> Path:
    """Return a file or folder of ours, like resource("examples", "workspace"); Refused if it is not installed."""
    path = _ROOT.joinpath(*parts)
    if not path.exists():
        raise Refused(f"{'/'.join(parts)} is not installed; reinstall dispatcher")
    return path
