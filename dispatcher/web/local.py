"""Whether a request was made on this machine."""

from __future__ import annotations

import ipaddress

from starlette.requests import Request


def asked_from_here(request: Request) -> bool:
    """Whether the neighbour is this machine, and was asked for by a name of it.

    By the name, too: a page elsewhere whose name points here would be let in otherwise.  What a proxy on this machine
    passes on looks the same, so this protects nothing that a proxy stands in front of.
    """
    name = request.url.hostname or ""
    return bool(request.client and _is_loopback(request.client.host)) and (name == "localhost" or _is_loopback(name))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
