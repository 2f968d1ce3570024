"""Questions to DNS, each with an end: what is not there is an empty answer, no answer is `Unanswered`."""

from __future__ import annotations

import ipaddress

import dns.exception
import dns.rdatatype
import dns.resolver

from dispatcher.errors import DispatcherError

ANSWER_SECONDS = 4.0
_TRY_SECONDS = 2.0


class Unanswered(DispatcherError):  # noqa: N818 - named for what it says, like the rest of its family
    """DNS did not say; that is no proof of anything."""


class Names:
    """A resolver: this machine's, or the one at `nameserver` (`address` or `address:port`)."""

    def __init__(self, nameserver: str | None = None, *, seconds: float = ANSWER_SECONDS) -> None:
        try:
            self._resolver = dns.resolver.Resolver(configure=nameserver is None)
        except dns.exception.DNSException:
            raise Unanswered("this machine has no nameserver configured") from None
        if nameserver is not None:
            host, port = _place(nameserver)
            self._resolver.nameservers, self._resolver.port = [host], port
        self._resolver.lifetime, self._resolver.timeout = seconds, min(_TRY_SECONDS, seconds)
        self._resolver.cache = dns.resolver.Cache()

    def texts(self, name: str) -> list[str]:
        """Return the TXT records, the strings of each joined."""
        return [b"".join(record.strings).decode("utf-8", "replace") for record in self._ask(name, "TXT")]

    def mail_servers(self, name: str) -> list[tuple[int, str]]:
        """Return preference and host of the MX records; a host of `""` says that no mail is taken (RFC 7505)."""
        return sorted((record.preference, record.exchange.to_text(True)) for record in self._ask(name, "MX"))

    def addresses(self, name: str) -> list[str]:
        """Return the IPv4 and IPv6 addresses."""
        return [record.address for kind in ("A", "AAAA") for record in self._ask(name, kind)]

    def _ask(self, name: str, kind: str) -> list[dns.rdtypes.ANY.TXT.TXT]:  # type: ignore[name-defined]
        try:
            answer = self._resolver.resolve(name, kind, search=False, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return []
        except (dns.exception.DNSException, OSError) as error:
            raise Unanswered(f"DNS does not answer for {name} ({type(error).__name__})") from None
        return list(answer.rrset or [])


def _place(nameserver: str) -> tuple[str, int]:
    host, _, port = nameserver.rpartition(":")
    try:
        ipaddress.ip_address(nameserver)
        return nameserver, 53
    except ValueError:
        pass
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), int(port)
    except ValueError:
        raise Unanswered(f"{nameserver} is no nameserver: an address, or address:port") from None
