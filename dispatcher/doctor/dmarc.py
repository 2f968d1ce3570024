"""DMARC: what receivers do with mail that only claims to be from a domain, and which domains belong together.

The organisational domain is found by the tree walk of DMARCbis: the records of the parents are asked for, up to the
top, and the one with the fewest labels says whose house it is.  So no list of public suffixes is needed, which would be
one more thing to keep fresh.  Receivers that still use such a list find the same for any domain that a shop can buy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dispatcher.doctor.check import Check
from dispatcher.doctor.dkim import read_tags
from dispatcher.doctor.names import Names

_NAME = "DMARC"
_POLICIES = ("none", "quarantine", "reject")
#: DMARCbis 4.10: of a longer name only the last seven are walked.
_MOST_LABELS = 8


@dataclass(frozen=True, slots=True)
class Dmarc:
    """What holds for a domain."""

    domain: str
    found_at: str | None  #: where the record is: the domain, or the organisational one above; None: nowhere
    tags: dict[str, str]
    organisation: str
    several: bool = False  #: more than one record at one name, so that none counts

    @property
    def policy(self) -> str:
        inherited = self.found_at != self.domain
        return ((self.tags.get("sp") if inherited else None) or self.tags.get("p", "")).lower()

    def is_aligned(self, other: str, *, mode: str, other_organisation: str) -> bool:
        """Whether `other` (of a signature, or a return path) speaks for the domain; `mode`: adkim or aspf."""
        if self.tags.get(mode, "r").lower() == "s":
            return other == self.domain
        return other_organisation == self.organisation


def read_dmarc(names: Names, domain: str) -> Dmarc:
    """Return what a receiver finds; Unanswered if DNS does not say."""
    found: list[tuple[str, dict[str, str]]] = []
    several = False
    organisation = None
    longer = domain
    for name in _walk(domain):
        records = [tags for tags in map(read_tags, names.texts(f"_dmarc.{name}")) if tags.get("v") == "DMARC1"]
        several |= len(records) > 1 and name == domain
        if len(records) == 1:
            if records[0].get("psd", "").lower() == "y" and name != domain:
                organisation = longer
                break
            found.append((name, records[0]))
            if records[0].get("psd", "").lower() == "n":
                organisation = name
                break
        longer = name
    organisation = organisation or (found[-1][0] if found else domain)
    place, tags = next((one for one in found if one[0] in (domain, organisation)), (None, {}))
    return Dmarc(domain, place, tags, organisation, several)


def _walk(domain: str) -> Iterator[str]:
    """Yield the domain and then its parents, up to the top-level one."""
    labels = domain.split(".")
    yield domain
    labels = labels[1:] if len(labels) <= _MOST_LABELS else labels[-(_MOST_LABELS - 1) :]
    while labels:
        yield ".".join(labels)
        labels = labels[1:]


def judge(names: Names, dmarc: Dmarc) -> Iterator[Check]:
    """Return what is to be said of the domain's DMARC."""
    domain, place = dmarc.domain, dmarc.found_at
    if dmarc.several:
        yield Check(_NAME, "wrong", f"_dmarc.{domain} has more than one record, so none counts", "leave one")
    elif place is None:
        yield Check(
            _NAME,
            "wrong",
            f"{domain} has no DMARC record: Gmail, Yahoo and Outlook refuse bulk mail without one",
            f'publish a TXT record at _dmarc.{domain}: "v=DMARC1; p=none; rua=mailto:dmarc@{dmarc.organisation}"',
        )
    elif dmarc.policy not in _POLICIES:
        yield Check(
            _NAME,
            "wrong",
            f"the record at _dmarc.{place} has no policy that is known",
            "write p=none, p=quarantine or p=reject",
        )
    else:
        yield from _judge_record(names, dmarc, place)


def _judge_record(names: Names, dmarc: Dmarc, place: str) -> Iterator[Check]:
    shown = f"{dmarc.domain}: {dmarc.policy}, by _dmarc.{place}, organisational domain {dmarc.organisation}"
    if dmarc.policy == "none":
        yield Check(
            _NAME,
            "look",
            f"{shown}: enough for bulk mail, but forged mail in your name is delivered",
            "read the reports, and when all that is yours passes write p=quarantine, later p=reject",
        )
    else:
        yield Check(_NAME, "ok", shown)
    if dmarc.tags.get("pct", "100") not in ("100", ""):
        yield Check(
            _NAME,
            "look",
            f"pct={dmarc.tags['pct']}: the policy holds for a part only, or for none",
            "take pct out; t=y says what is a test",
        )
    for tag, what in (("adkim", "a signature (d=)"), ("aspf", "a return path")):
        if dmarc.tags.get(tag, "r").lower() == "s":
            detail = f"{tag}=s: only {what} of exactly {dmarc.domain} counts, none of a subdomain"
            yield Check(_NAME, "look", detail, f"take {tag}=s out, unless your provider uses exactly this name")
    yield from _judge_reports(names, dmarc, place)


def _judge_reports(names: Names, dmarc: Dmarc, place: str) -> Iterator[Check]:
    addresses = [one for one in dmarc.tags.get("rua", "").split(",") if one]
    if not addresses:
        yield Check(
            _NAME,
            "look",
            f"the record at _dmarc.{place} names nobody who gets reports (rua)",
            f"add rua=mailto:dmarc@{dmarc.organisation}: they show who sends in your name",
        )
    for address in addresses:
        target = address.partition("!")[0].rpartition("@")[2].lower()
        if not address.lower().startswith("mailto:") or not target:
            yield Check(_NAME, "look", f"rua={address} is no address to mail reports to", "write rua=mailto:...")
        elif read_dmarc(names, target).organisation != dmarc.organisation:
            agreed = f"{place}._report._dmarc.{target}"
            if not any(read_tags(text).get("v") == "DMARC1" for text in names.texts(agreed)):
                yield Check(
                    _NAME,
                    "look",
                    f"{target} has not said that it takes reports about {place}: none are sent",
                    f'it must publish a TXT record at {agreed}: "v=DMARC1"',
                )
