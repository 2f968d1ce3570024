"""Who carries messages: one file per provider behind one protocol (`protocol.Provider`)."""

from __future__ import annotations

from pathlib import Path

from dispatcher.errors import Refused
from dispatcher.providers.protocol import Provider
from dispatcher.providers.sandbox import Sandbox


def provider_for(channel: str, name: str, *, home: Path) -> Provider:
    """Return the configured provider of a channel."""
    if name == "sandbox":
        return Sandbox(home / "sandbox", channel)
    raise Refused(f"there is no {channel} provider called {name}; known: sandbox")
