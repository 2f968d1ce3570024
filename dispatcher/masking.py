"""Addresses shown so that their owner knows them and nobody else learns them."""

from __future__ import annotations

_DOTS = "•••"


def masked_address(channel: str, address: str) -> str:
    return masked_email(address) if channel == "email" else masked_phone(address)


def masked_email(address: str) -> str:
    """Return `jane@good.example` as `j•••@g•••.example`: always three dots, so that not even the length shows."""
    local, _, domain = address.rpartition("@")
    name, dot, ending = domain.rpartition(".")
    return f"{local[:1]}{_DOTS}@{name[:1]}{_DOTS}{dot}{ending if dot else ''}"


def masked_phone(number: str) -> str:
    """Return `+447700900123` as `+44••• 23`: the beginning every number of the country has, and the last two digits."""
    return f"{number[:3]}{_DOTS} {number[-2:]}" if len(number) >= 8 else _DOTS
