"""What doctor says of a sender's DNS, against a real name server on this machine."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from typing import Literal

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from name_server import NameServer, name_server

from dispatcher.doctor import dkim, dmarc, spf
from dispatcher.doctor.check import Check
from dispatcher.doctor.names import Names, Unanswered
from dispatcher.doctor.sender import Sender, looks_at
from dispatcher.doctor.side_by_side import look_side_by_side

SHOP = "shop.test"
GOOD = "v=spf1 include:mail.test -all"


@pytest.fixture
def dns() -> Iterator[NameServer]:
    with name_server({"mail.test": "v=spf1 ip4:192.0.2.0/24 ~all"}) as server:
        yield server


def names(server: NameServer) -> Names:
    return Names(server.address, seconds=2.0)


def spf_of(server: NameServer, *records: str) -> dict[str, str]:
    """Return what is found about the shop's SPF, by the first words that tell it apart, with the verdict."""
    server.text(SHOP, "unrelated", *records)
    return {check.detail: check.verdict for check in spf.judge(spf.read_spf(names(server), SHOP))}


def one(found: dict[str, str], words: str) -> str:
    """Return the verdict of the one finding that says so."""
    verdicts = [verdict for detail, verdict in found.items() if words in detail]
    assert len(verdicts) == 1, found
    return verdicts[0]


# --- SPF


def test_a_good_record_is_followed_to_its_end(dns: NameServer) -> None:
    dns.text(SHOP, GOOD)
    found = spf.read_spf(names(dns), SHOP)

    assert [check.verdict for check in spf.judge(found)] == ["ok"]
    assert (found.lookups, found.end, found.covers) == (1, "-", {"mail.test"})
    assert found.allows("192.0.2.77")
    assert not found.allows("192.0.3.1")


def test_none_several_and_open_records_are_wrong(dns: NameServer) -> None:
    assert one(spf_of(dns), "has no SPF record") == "wrong"
    assert one(spf_of(dns, GOOD, "v=spf1 -all"), "2 SPF records") == "wrong"
    assert one(spf_of(dns, "v=spf1 +all"), "anybody may send") == "wrong"
    assert one(spf_of(dns, "v=spf1 all"), "anybody may send") == "wrong"
    assert one(spf_of(dns, "v=spf1 include:mail.test ?all"), "?all") == "look"
    assert one(spf_of(dns, "v=spf1 include:mail.test"), "does not end in `all`") == "look"
    assert one(spf_of(dns, "v=spf10 -all"), "has no SPF record") == "wrong"  # that is another word


@pytest.mark.parametrize(("includes", "verdict"), [(10, "ok"), (11, "wrong")])
def test_look_ups_are_counted_through_all_includes(dns: NameServer, includes: int, verdict: str) -> None:
    for number in range(includes - 5):
        dns.text(f"i{number}.test", "v=spf1 ip4:192.0.2.1 -all")
    dns.text(
        "nest.test", f"v=spf1 {' '.join(f'include:i{number}.test' for number in range(includes - 5))} a mx ptr -all"
    )
    dns.records["nest.test", "A"] = ["192.0.2.9"]
    found = spf_of(dns, "v=spf1 include:nest.test exists:%{i}.test -all")

    assert one(found, f"{includes} ") == verdict
    dns.text("nest.test", "v=spf1 include:shop.test -all")  # a circle
    assert "give up" in next(iter(spf_of(dns, "v=spf1 include:nest.test -all")))


def test_a_redirect_brings_its_own_end_and_does_not_count_beside_all(dns: NameServer) -> None:
    dns.text(SHOP, "v=spf1 redirect=mail.test")
    assert spf.read_spf(names(dns), SHOP).end == "~"
    dns.text(SHOP, "v=spf1 redirect=mail.test -all")
    assert spf.read_spf(names(dns), SHOP).end == "-"


def test_hosts_are_looked_up_with_the_length_of_their_network(dns: NameServer) -> None:
    dns.records[SHOP, "MX"] = ["10 in.shop.test."]
    dns.records["in.shop.test", "A"] = ["192.0.2.7"]
    dns.records["in.shop.test", "AAAA"] = ["2001:db8::7"]
    dns.text(SHOP, "v=spf1 mx/24//64 -all")
    found = spf.read_spf(names(dns), SHOP)
    assert [found.allows(address) for address in ("192.0.2.200", "2001:db8::1", "192.0.3.7")] == [True, True, False]

    dns.text(SHOP, "v=spf1 a:in.shop.test -all")
    found = spf.read_spf(names(dns), SHOP)
    assert [found.allows(address) for address in ("192.0.2.7", "192.0.2.200")] == [True, False]


def test_what_is_broken_is_named(dns: NameServer) -> None:
    assert one(spf_of(dns, "v=spf1 include:nowhere.test -all"), "include:nowhere.test has no SPF record") == "wrong"
    assert one(spf_of(dns, "v=spf1 ip4:300.1.1.1 -all"), "300.1.1.1 is no network") == "wrong"
    assert one(spf_of(dns, "v=spf1 mial.test -all"), "nobody knows what mial.test means") == "wrong"
    assert one(spf_of(dns, "v=spf1 ptr -all"), "uses ptr") == "look"
    assert one(spf_of(dns, "v=spf1 ip4:192.0.2.1 exp=why.test -all"), "ends in -all") == "ok"


# --- DKIM


def key_of(bits: int) -> str:
    public = rsa.generate_private_key(65537, bits).public_key()
    return base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


SHORT, GOOD_KEY = key_of(1024), key_of(2048)


@pytest.mark.parametrize(
    ("records", "verdicts", "says"),
    [
        ([f"v=DKIM1; k=rsa; p={GOOD_KEY}"], ["ok"], "rsa key of 2,048 bits"),
        ([f"p={GOOD_KEY}"], ["ok"], "rsa key of 2,048 bits"),
        ([f"v=DKIM1; p={SHORT}"], ["look"], "short for today"),
        ([f"v=DKIM1; t=y:s; p={GOOD_KEY}"], ["ok", "look"], "it is a test"),
        (["v=DKIM1; p="], ["wrong"], "revoked"),
        (["v=DKIM1; p=AAAA"], ["wrong"], "cannot be read"),
        (["v=DKIM1; k=ed25519; p=" + base64.b64encode(bytes(32)).decode()], ["look"], "ed25519"),
        ([], ["wrong"], "there is no key"),
        ([f"p={GOOD_KEY}", f"p={SHORT}"], ["wrong"], "2 keys"),
    ],
)
def test_a_key_is_judged(dns: NameServer, records: list[str], verdicts: list[str], says: str) -> None:
    if records:
        dns.text(f"s1._domainkey.{SHOP}", *records)
    found = list(dkim.look_at_key(names(dns), SHOP, "s1"))

    assert [check.verdict for check in found] == verdicts
    assert says in " ".join(check.detail for check in found)
    assert all(check.to_do for check in found if check.verdict != "ok")


# --- DMARC


def judged(server: NameServer, domain: str = SHOP) -> dict[str, str]:
    found = dmarc.read_dmarc(names(server), domain)
    return {check.detail: check.verdict for check in dmarc.judge(names(server), found)}


def test_policies_are_judged(dns: NameServer) -> None:
    assert one(judged(dns), "has no DMARC record") == "wrong"
    dns.text(f"_dmarc.{SHOP}", "v=DMARC1; p=none")
    assert one(judged(dns), "forged mail in your name") == "look"
    assert one(judged(dns), "names nobody who gets reports") == "look"
    dns.text(f"_dmarc.{SHOP}", f"v=DMARC1; p=reject; rua=mailto:d@{SHOP}")
    assert list(judged(dns).values()) == ["ok"]
    dns.text(f"_dmarc.{SHOP}", f"v=DMARC1; p=reject; pct=20; rua=mailto:d@{SHOP}")
    assert one(judged(dns), "pct=20") == "look"
    dns.text(f"_dmarc.{SHOP}", f"v=DMARC1; p=reject; aspf=s; rua=mailto:d@{SHOP}")
    assert one(judged(dns), "only a return path of exactly shop.test counts") == "look"
    dns.text(f"_dmarc.{SHOP}", "v=DMARC1; p=everything")
    assert one(judged(dns), "no policy that is known") == "wrong"
    dns.text(f"_dmarc.{SHOP}", "v=DMARC1; p=none", "v=DMARC1; p=reject")
    assert one(judged(dns), "more than one record") == "wrong"


def test_reports_to_another_house_need_its_word(dns: NameServer) -> None:
    dns.text(f"_dmarc.{SHOP}", "v=DMARC1; p=reject; rua=mailto:shop@reports.test!10m")
    assert one(judged(dns), "has not said that it takes reports") == "look"
    dns.text(f"{SHOP}._report._dmarc.reports.test", "v=DMARC1")
    assert list(judged(dns).values()) == ["ok"]


def test_the_organisation_is_found_by_walking_up(dns: NameServer) -> None:
    dns.text("_dmarc.shop.test", "v=DMARC1; p=reject; sp=quarantine; rua=mailto:d@shop.test")
    found = dmarc.read_dmarc(names(dns), "news.mail.shop.test")
    assert (found.found_at, found.organisation, found.policy) == ("shop.test", "shop.test", "quarantine")
    assert found.is_aligned("shop.test", mode="adkim", other_organisation="shop.test")

    dns.text("_dmarc.mail.shop.test", "v=DMARC1; p=none; psd=n; adkim=s")
    found = dmarc.read_dmarc(names(dns), "mail.shop.test")
    assert (found.organisation, found.policy) == ("mail.shop.test", "none")
    assert not found.is_aligned("x.mail.shop.test", mode="adkim", other_organisation="mail.shop.test")
    assert found.is_aligned("x.mail.shop.test", mode="aspf", other_organisation="mail.shop.test")


def test_a_public_suffix_that_says_so_is_nobodys_organisation(dns: NameServer) -> None:
    dns.text("_dmarc.co.test", "v=DMARC1; p=reject; psd=y")
    dns.text("_dmarc.a.co.test", "v=DMARC1; p=none")

    assert dmarc.read_dmarc(names(dns), "mail.a.co.test").organisation == "a.co.test"
    assert dmarc.read_dmarc(names(dns), "mail.b.co.test").organisation == "b.co.test"


# --- together


def looked_at(server: NameServer, sender: Sender) -> list[Check]:
    return look_side_by_side(looks_at(sender, names(server)))


def by_name(found: list[Check], name: str) -> list[str]:
    return [check.verdict for check in found if check.name == name]


def test_a_good_house_is_ok_all_over(dns: NameServer) -> None:
    dns.text(SHOP, "v=spf1 include:amazonses.com -all")
    dns.text("amazonses.com", "v=spf1 ip4:192.0.2.0/24 -all")
    dns.text(f"key._domainkey.{SHOP}", f"v=DKIM1; p={GOOD_KEY}")
    dns.text(f"_dmarc.{SHOP}", f"v=DMARC1; p=reject; rua=mailto:d@{SHOP}")
    dns.records[SHOP, "MX"] = ["10 in.shop.test."]

    found = looked_at(dns, Sender(SHOP, "smtp", "email-smtp.eu-west-1.amazonaws.com", ("key",)))

    assert {check.verdict for check in found} == {"ok"}
    assert [check.name for check in found] == ["SPF", "SPF", "DKIM", "DMARC", "MX"]


def test_what_sends_must_be_allowed_to(dns: NameServer) -> None:
    dns.text(SHOP, GOOD)
    dns.records["smtp.shop.test", "A"] = ["192.0.2.25"]
    assert by_name(looked_at(dns, Sender(SHOP, "smtp", "smtp.shop.test")), "SPF") == ["ok", "ok"]
    dns.records["smtp.shop.test", "A"] = ["198.51.100.1"]
    assert by_name(looked_at(dns, Sender(SHOP, "smtp", "smtp.shop.test")), "SPF") == ["ok", "look"]
    assert by_name(looked_at(dns, Sender(SHOP, "smtp", "smtp.mailgun.org")), "SPF") == ["ok", "look"]


@pytest.mark.parametrize(
    ("records", "verdict"),
    [({}, "wrong"), ({"MX": ["0 ."]}, "wrong"), ({"A": ["192.0.2.1"]}, "look"), ({"MX": ["5 mx.test."]}, "ok")],
)
def test_answers_must_get_somewhere(dns: NameServer, records: dict[str, list[str]], verdict: str) -> None:
    for kind, values in records.items():
        dns.records[SHOP, kind] = values

    assert by_name(looked_at(dns, Sender(SHOP, "smtp")), "MX") == [verdict]


@pytest.mark.parametrize(("provider", "worst"), [("smtp", "wrong"), ("sandbox", "look")])
def test_in_the_sandbox_nothing_of_this_is_wrong_yet(
    dns: NameServer, provider: Literal["smtp", "sandbox"], worst: str
) -> None:
    found = looked_at(dns, Sender(SHOP, provider))

    assert worst in {check.verdict for check in found}
    assert provider == "smtp" or "wrong" not in {check.verdict for check in found}


def test_sendgrid_has_selectors_of_its_own(dns: NameServer) -> None:
    looked_at(dns, Sender(SHOP, "sendgrid"))

    assert {(f"{selector}._domainkey.{SHOP}", "TXT") for selector in ("s1", "s2")} <= set(dns.asked)


def test_a_silent_name_server_is_no_proof_and_costs_no_more_than_it_is_given(dns: NameServer) -> None:
    dns.silent = True
    began = time.monotonic()
    resolver = Names(dns.address, seconds=0.3)
    found = look_side_by_side(looks_at(Sender(SHOP, "sendgrid"), resolver))

    assert time.monotonic() - began < 3
    assert [(check.name, check.verdict) for check in found] == [
        (name, "look") for name in ("SPF", "DKIM", "DMARC", "MX")
    ]
    assert all("DNS does not answer" in check.detail for check in found)


def test_what_hangs_is_left_behind_and_hides_nothing() -> None:
    ended = threading.Event()

    def hangs() -> Iterator[Check]:
        yield Check("slow", "ok", "first")
        ended.wait(30)

    def breaks() -> Iterator[Check]:
        raise RuntimeError

    looks = [("slow", hangs), ("broken", breaks), ("quick", lambda: [Check("quick", "ok", "there")])]
    found = look_side_by_side(looks, seconds=0.2)
    ended.set()

    assert [(check.name, check.verdict) for check in found] == [
        ("slow", "ok"), ("slow", "look"), ("broken", "look"), ("quick", "ok"),
    ]  # fmt: skip
    assert "no answer within 0.2 s" in found[1].detail


def test_a_name_server_is_an_address() -> None:
    with pytest.raises(Unanswered, match="is no nameserver"):
        Names("ns.shop.test")
    assert Names("[::1]:53")
    assert Names("::1")
