"""The sender's name in DNS: may this provider send for it, can receivers prove that, does anybody get the answers?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dispatcher.doctor import dkim, dmarc, spf
from dispatcher.doctor.check import Check, at_most_look
from dispatcher.doctor.names import Names
from dispatcher.doctor.side_by_side import Look

#: RFC 2606 and 6761: names that are nobody's.
_NOBODYS = frozenset({"example", "test", "invalid", "localhost", "local"})
_EXAMPLES = frozenset({"example.com", "example.net", "example.org"})
#: What a mail service asks to be included as, by the end of its server's name.
SERVICES = {
    "amazonaws.com": "amazonses.com",
    "gmail.com": "_spf.google.com",
    "google.com": "_spf.google.com",
    "mailgun.org": "mailgun.org",
    "mandrillapp.com": "spf.mandrillapp.com",
    "office365.com": "spf.protection.outlook.com",
    "outlook.com": "spf.protection.outlook.com",
    "postmarkapp.com": "spf.mtasv.net",
    "sendgrid.net": "sendgrid.net",
    "sparkpostmail.com": "sparkpostmail.com",
}
#: SendGrid's, where it manages the records (automated security).
SENDGRID_SELECTORS = ("s1", "s2")


@dataclass(frozen=True, slots=True)
class Sender:
    """Who the mails are from, and by whom they go."""

    domain: str  #: of the address in From, in ASCII
    provider: str  #: as in DISPATCHER_EMAIL_PROVIDER
    smtp_host: str | None = None
    selectors: tuple[str, ...] = ()

    @property
    def is_nobodys(self) -> bool:
        return self.domain.rpartition(".")[2] in _NOBODYS or self.domain in _EXAMPLES


def looks_at(sender: Sender, names: Names) -> list[tuple[str, Look]]:
    """Return the looks at the sender's DNS; while nothing but the sandbox sends, none of them is a reason to stop."""
    looks: list[tuple[str, Look]] = [
        ("SPF", lambda: _spf(names, sender)),
        ("DKIM", lambda: _dkim(names, sender)),
        ("DMARC", lambda: dmarc.judge(names, dmarc.read_dmarc(names, sender.domain))),
        ("MX", lambda: _mail_servers(names, sender.domain)),
    ]
    if sender.provider == "sandbox":
        return [(name, _softened(look)) for name, look in looks]
    return looks


def _softened(look: Look) -> Look:
    return lambda: [at_most_look(check) for check in look()]


def _spf(names: Names, sender: Sender) -> Iterable[Check]:
    found = spf.read_spf(names, sender.domain)
    checks = list(spf.judge(found))
    if sender.provider == "sendgrid":
        # Its return path is a name of SendGrid's, or of ours that leads there: SPF is asked about that one.
        return [at_most_look(check) for check in checks]
    if sender.smtp_host and len(found.records) == 1:
        checks += _covers_server(names, found, sender.smtp_host)
    return checks


def _covers_server(names: Names, found: spf.Spf, host: str) -> Iterator[Check]:
    include = next((name for end, name in SERVICES.items() if f".{host}".endswith(f".{end}")), None)
    if include is not None:
        if include in found.covers:
            yield Check("SPF", "ok", f"{found.domain} includes {include}, for {host}")
        else:
            yield Check(
                "SPF",
                "look",
                f"the record of {found.domain} does not include {include}, for {host}",
                f"add include:{include}, unless the service writes a return path of its own: "
                "dispatcher doctor --mail FILE shows it",
            )
        return
    addresses = names.addresses(host)
    if addresses and all(found.allows(address) for address in addresses):
        yield Check("SPF", "ok", f"{found.domain} allows {host}")
    else:
        yield Check(
            "SPF",
            "look",
            f"the record of {found.domain} does not name {host}",
            "if it also delivers the mails, add its addresses; dispatcher doctor --mail FILE shows what a receiver saw",
        )


def _dkim(names: Names, sender: Sender) -> Iterator[Check]:
    selectors = sender.selectors or (SENDGRID_SELECTORS if sender.provider == "sendgrid" else ())
    if not selectors:
        yield Check(
            "DKIM",
            "look",
            "not known which keys sign: your mail server signs, not Dispatcher",
            "set DISPATCHER_DKIM_SELECTORS, or send yourself a mail and run dispatcher doctor --mail FILE",
        )
    for selector in selectors:
        yield from dkim.look_at_key(names, sender.domain, selector)


def _mail_servers(names: Names, domain: str) -> Iterator[Check]:
    servers = names.mail_servers(domain)
    if any(host in ("", ".") for _, host in servers):
        yield Check(
            "MX",
            "wrong",
            f"{domain} says that it takes no mail (null MX): many receivers refuse mail from it",
            "send from a domain that takes replies",
        )
    elif not servers and not names.addresses(domain):
        yield Check(
            "MX",
            "wrong",
            f"{domain} takes no mail: it has neither MX nor address",
            "publish an MX record: replies and bounces come there, and receivers look for it",
        )
    elif not servers:
        yield Check("MX", "look", f"{domain} has no MX record; mail goes to its address", "publish an MX record")
    else:
        yield Check("MX", "ok", f"{domain}: {', '.join(host for _, host in servers[:3])}")
