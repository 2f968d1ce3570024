"""Whether a request was made on this machine."""

from __future__ import annotations

import ipaddress

from starlette.requests import Request

#: What a proxy adds: one on this machine would make everybody look as if they sat here.
_OF_PROXIES = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


def asked_from_here(request: Request) -> bool:
    """Whether the neighbour is this machine, asks for itself, and asked by a name of this machine.

    By the name, too: a page elsewhere whose name points here would be let in otherwise.
    """
    if request.client is None or not _is_loopback(request.client.host):
        return False
    if any(name in request.headers for name in _OF_PROXIES):
        return False
    name = request.url.hostname or ""
    return name == "localhost" or _is_loopback(name)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
