"""SPF (RFC 7208): which servers may use the domain as the sender of their mails."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field

from dispatcher.doctor.check import Check
from dispatcher.doctor.names import Names

#: RFC 7208 4.6.4: mechanisms and modifiers that ask DNS; past it the record counts for nothing.
MOST_LOOKUPS = 10
_STOP_AT = 25  #: nobody needs to know by how much more
_ASKING = frozenset({"include", "a", "mx", "ptr", "exists", "redirect"})
_KNOWN = _ASKING | {"all", "ip4", "ip6"}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass
class Spf:
    """A domain's SPF, followed to its end."""

    domain: str
    records: list[str] = field(default_factory=list)
    end: str | None = None  #: the qualifier of its `all`: + - ~ ?; None: it has none
    lookups: int = 0
    covers: set[str] = field(default_factory=set)  #: domains it includes, at any depth
    networks: list[Network] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    uses_ptr: bool = False

    def allows(self, address: str) -> bool:
        """Whether a server at this address is among those that are named."""
        one = ipaddress.ip_address(address)
        return any(one.version == network.version and one in network for network in self.networks)


def read_spf(names: Names, domain: str) -> Spf:
    """Return what a receiver finds; Unanswered if DNS does not say."""
    spf = Spf(domain)
    spf.records = _records(names, domain)
    if len(spf.records) == 1:
        _follow(names, spf, domain, spf.records[0], top=True)
    return spf


def _records(names: Names, domain: str) -> list[str]:
    return [text for text in names.texts(domain) if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")]


def _follow(names: Names, spf: Spf, domain: str, record: str, *, top: bool) -> None:
    redirect = None
    ended = False
    for term in record.split()[1:]:
        qualifier, name, value = _read_term(term)
        if name in _ASKING:
            spf.lookups += 1
        if spf.lookups > _STOP_AT:
            return
        if name == "all":
            ended = True
            if top:
                spf.end = qualifier
        elif name == "redirect":
            redirect = value
        elif name == "include":
            _include(names, spf, value)
        elif name in ("ip4", "ip6"):
            _add_network(spf, value)
        elif name in ("a", "mx") and "%" not in value:
            _add_hosts(names, spf, name, value, domain)
        elif name == "ptr":
            spf.uses_ptr = True
        elif name not in _KNOWN and "=" not in term:
            spf.faults.append(f"nobody knows what {term} means")
    if redirect is not None and not ended and "%" not in redirect:
        _redirect(names, spf, redirect, top=top)


def _read_term(term: str) -> tuple[str, str, str]:
    """Return qualifier, name in lower case, and value of a term."""
    qualifier, rest = (term[0], term[1:]) if term[:1] in "+-~?" else ("+", term)
    for mark in ("=", ":", "/"):
        name, found, value = rest.partition(mark)
        if found and name.isalnum():
            return qualifier, name.lower(), f"/{value}" if mark == "/" else value
    return qualifier, rest.lower(), ""


def _include(names: Names, spf: Spf, domain: str) -> None:
    if not domain or "%" in domain:
        return
    spf.covers.add(domain.lower().rstrip("."))
    records = _records(names, domain)
    if len(records) == 1:
        _follow(names, spf, domain, records[0], top=False)
    else:
        spf.faults.append(f"include:{domain} has {'no' if not records else 'more than one'} SPF record")


def _redirect(names: Names, spf: Spf, domain: str, *, top: bool) -> None:
    spf.covers.add(domain.lower().rstrip("."))
    records = _records(names, domain)
    if len(records) == 1:
        _follow(names, spf, domain, records[0], top=top)
    else:
        spf.faults.append(f"redirect={domain} has {'no' if not records else 'more than one'} SPF record")


def _add_network(spf: Spf, value: str) -> None:
    try:
        spf.networks.append(ipaddress.ip_network(value, strict=False))
    except ValueError:
        spf.faults.append(f"{value or 'nothing'} is no network")


def _add_hosts(names: Names, spf: Spf, kind: str, value: str, domain: str) -> None:
    host, _, prefixes = value.partition("/")
    host, (wide, _, long) = host or domain, prefixes.partition("//")
    lengths = {4: wide or "32", 6: long or "128"}
    hosts = [exchange for _, exchange in names.mail_servers(host) if exchange] if kind == "mx" else [host]
    for one in hosts[:10]:
        for address in map(ipaddress.ip_address, names.addresses(one)):
            _add_network(spf, f"{address}/{lengths[address.version]}")


_NAME = "SPF"


def judge(spf: Spf) -> Iterator[Check]:
    """Return what is to be said of it; how it goes with our provider is said by `sender`."""
    domain = spf.domain
    if not spf.records:
        yield Check(
            _NAME,
            "wrong",
            f"{domain} has no SPF record",
            f'publish a TXT record at {domain}: "v=spf1 include:YOUR-PROVIDER ~all"',
        )
        return
    if len(spf.records) > 1:
        yield Check(
            _NAME,
            "wrong",
            f"{domain} has {len(spf.records)} SPF records, so none counts",
            "make one of them: all mechanisms in one record, one `all` at its end",
        )
        return
    for fault in spf.faults:
        yield Check(_NAME, "wrong", f"the record of {domain} is broken: {fault}", "correct it, or take it out")
    if spf.lookups > MOST_LOOKUPS:
        shown = f"more than {_STOP_AT}" if spf.lookups > _STOP_AT else str(spf.lookups)
        yield Check(
            _NAME,
            "wrong",
            f"the record of {domain} needs {shown} DNS look-ups, more than {MOST_LOOKUPS}: receivers give up",
            "take out includes of services that do not send for you any more",
        )
    if spf.end == "+":
        yield Check(
            _NAME,
            "wrong",
            f"the record of {domain} ends in +all: anybody may send in your name",
            "end it in ~all or -all",
        )
    elif spf.end in (None, "?"):
        how = "does not end in `all`" if spf.end is None else "ends in ?all"
        yield Check(_NAME, "look", f"the record of {domain} {how}: it keeps nobody out", "end it in ~all or -all")
    if spf.uses_ptr:
        yield Check(
            _NAME,
            "look",
            f"the record of {domain} uses ptr, which receivers may ignore (RFC 7208 5.5)",
            "name the servers by ip4, ip6 or include",
        )
    if not spf.faults and spf.lookups <= MOST_LOOKUPS and spf.end in ("-", "~"):
        yield Check(
            _NAME, "ok", f"{domain}: one record, {spf.lookups} of {MOST_LOOKUPS} look-ups, ends in {spf.end}all"
        )
