"""Where links may lead, and what is added to them."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.definitions import Shop, Utm
from dispatcher.destinations import AllowedHosts, allowed_hosts, destination_of, utm_words, with_utm

SHOP = {"name": "Shop", "from_email": "hello@shop.example", "postal_address": "1 High Street"}
WORDS = utm_words(Utm(source="letter", campaign="Christmas & more"), name="christmas", channel="email")


@pytest.mark.parametrize(
    ("url", "host", "url_in_ascii"),
    [
        ("https://Shop.example/a?b=1&c=ü#f", "shop.example", "https://shop.example/a?b=1&c=%C3%BC#f"),
        ("HTTPS://shop.example", "shop.example", "https://shop.example"),
        (" https://shop.example:443/ ", "shop.example", "https://shop.example:443/"),
        ("http://shop.example:8080/x y", "shop.example:8080", "http://shop.example:8080/x%20y"),
        ("https://münchen.example/", "xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example/"),
        ("https://shop.example/%C3%BC?a=%26", "shop.example", "https://shop.example/%C3%BC?a=%26"),
    ],
)
def test_a_link_is_read_as_a_browser_reads_it(url: str, host: str, url_in_ascii: str) -> None:
    destination = destination_of(url)

    assert destination is not None
    assert (destination.host, destination.url) == (host, url_in_ascii)


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example@evil.example/", "https://shop.example:pass@evil.example", "https://evil.example\\@shop.example",
        "https://evil.example\\.shop.example/", "//evil.example", "javascript:alert(1)", "data:text/html,x", "https:///x",
        "https:evil.example", "https://shop.example\r\nSet-Cookie: a=b", "https://shop.example/\r\nX: y",
        "https://shop.example/\x00", "https://[::1]/", "https://shop..example/", "https://-shop.example/",
        "https://shop.example:99999999/", "https://shop.example%2f@evil.example/", "https://evil.example%00.shop.example",
        "https://" + "a" * 3_000, "ftp://shop.example/", "mailto:a@shop.example", "tel:+447700900123", "/x", "", "#top",
    ],
)  # fmt: skip
def test_what_browsers_may_read_otherwise_is_no_destination(url: str) -> None:
    """ASVS 5.0 3.7.2."""
    destination = destination_of(url)

    assert destination is None or not AllowedHosts(("shop.example", "*.shop.example")).allow(destination.host)


@given(st.text(max_size=80))
def test_a_destination_is_always_a_header_value_on_one_line_and_its_host_is_the_one_looked_at(rest: str) -> None:
    """ASVS 5.0 3.7.2, 1.2.1: nothing can break out of the Location header, or out of the host."""
    for url in (f"https://shop.example{rest}", rest, f"https://{rest}"):
        destination = destination_of(url)
        if destination is not None:
            assert destination.url.isascii()
            assert destination.url.isprintable()
            assert " " not in destination.url
            parts = urlsplit(destination.url)
            assert (parts.hostname or "") == destination.host.partition(":")[0]
            assert parts.username is None


def test_a_host_stands_for_itself_and_a_star_for_all_below_it() -> None:
    hosts = AllowedHosts(("shop.example", "*.news.example", "dev.example:8443"))

    assert all(hosts.allow(host) for host in ("shop.example", "a.news.example", "b.a.news.example", "dev.example:8443"))
    for host in ("www.shop.example", "news.example", "evilnews.example", "notshop.example", "shop.example.evil.example",
                 "shop.example:8080", "dev.example"):  # fmt: skip
        assert not hosts.allow(host), host


def test_without_a_list_links_may_lead_to_the_domain_the_shop_sends_from() -> None:
    hosts = allowed_hosts(Shop.model_validate({"shop": SHOP}))

    assert hosts.allow("shop.example")
    assert hosts.allow("www.shop.example")
    assert not hosts.allow("evil.example")
    none = Shop.model_validate({"shop": SHOP, "links": {"allowed_hosts": []}})
    assert not allowed_hosts(none).allow("shop.example")


@pytest.mark.parametrize("host", ["https://shop.example", "shop.example/x", "*", "*.", "Shop.example", "a b", 7])
def test_what_is_no_host_is_refused(host: object) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        Shop.model_validate({"shop": SHOP, "links": {"allowed_hosts": [host]}})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://shop.example", "https://shop.example?{}"),
        ("https://shop.example/a#frag?x=1", "https://shop.example/a?{}#frag?x=1"),
        ("https://shop.example/?a=%20b&a=2&c", "https://shop.example/?a=%20b&a=2&c&{}"),
        ("https://shop.example/?", "https://shop.example/?{}"),
        ("https://shop.example/?a=1&", "https://shop.example/?a=1&{}"),
    ],
)
def test_utm_parameters_stand_behind_what_was_there(url: str, expected: str) -> None:
    words = "utm_source=letter&utm_medium=email&utm_campaign=Christmas%20%26%20more"

    assert with_utm(url, WORDS) == expected.format(words)


def test_the_authors_own_utm_parameters_stay_and_nothing_is_added_twice() -> None:
    url = with_utm("https://shop.example/?utm_medium=qr", WORDS)

    assert url.count("utm_medium") == 1
    assert "utm_medium=qr" in url
    assert with_utm(url, WORDS) == url
    assert with_utm("https://shop.example/", ()) == "https://shop.example/"


@given(
    st.text(alphabet="abc=&?#%20/utm_", max_size=30), st.text(min_size=1, max_size=20).filter(lambda t: t.isprintable())
)
def test_whatever_was_in_the_query_is_still_in_it(rest: str, source: str) -> None:
    url = f"https://shop.example/{rest}"
    changed = with_utm(url, (("utm_source", source),))

    before, after = urlsplit(url), urlsplit(changed)
    assert (after.scheme, after.netloc, after.path, after.fragment) == (
        *before[:3],
        before.fragment,
    )
    assert after.query.startswith(before.query)
    had = dict(parse_qsl(before.query, keep_blank_values=True))
    if "utm_source" not in had:
        assert dict(parse_qsl(after.query, keep_blank_values=True))["utm_source"] == source
