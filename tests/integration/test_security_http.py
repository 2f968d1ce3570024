"""What every route of the HTTP room keeps, asked of every route there is.  Numbers are of OWASP ASVS 5.0."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from ledger import SmallShop, make_noon
from ledger_rows import wait_until
from people import add_person
from routes import Asked, every_route
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, text
from web_server import Answer, Web, serving

from dispatcher import api_keys
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.runtime import Runtime
from dispatcher.settings import Settings
from dispatcher.tokens import ClickedLink, ClickTokens, OptInTokens, UnsubscribeTokens, WayIn
from dispatcher.web import bad_links, create_app
from dispatcher.workspace import read_workspace

COUNTED = {
    "campaigns/hello.yaml": FILES["campaigns/hello.yaml"] + "track_clicks: true\n",
    "templates/email/christmas/body.html": FILES["templates/email/christmas/body.html"].replace(
        "<p>Hello", '<a href="https://small.example/">x</a><p>Hello'
    ),
}
#: A browser that another site told to send something here.
FOREIGN = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Cookie": "session=1"}
#: What may be written down of somebody who only looks: that a key was used, who looked at whose data (in the audit and
#: its chain), a click, and how many asked.
NOTES = {"api_key", "audit", "audit_link", "audit_head", "feedback", "figure"}


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> SmallShop:
    """A shop that has sent one campaign to two people, whose clicks are counted."""
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", COUNTED)), by="test")
        make_noon(connection)
        add_person(connection, key_ring, "x")
        add_person(connection, key_ring, "other")
    shop = SmallShop(database, key_ring, tmp_path / "home")
    shop.campaign("hello")
    return shop


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with serving(database, key_ring, tmp_path / "home", public_url="https://mail.shop.example") as web:
        yield web


@pytest.fixture
def bearer(database: Engine) -> dict[str, str]:
    with database.begin() as connection:
        return {"Authorization": f"Bearer {api_keys.create(connection, 'all', api_keys.SCOPES)}"}


def good_tokens(database: Engine, key_ring: KeyRing) -> dict[str, str]:
    with database.connect() as connection:
        contact, address = connection.execute(
            text("SELECT id, email_address_id FROM contact WHERE external_id = 'x'")
        ).one()
        evidence = connection.scalar(text("SELECT max(id) FROM consent_event"))
        tracked = connection.scalar(text("SELECT min(id) FROM tracked_message"))
    way_out = UnsubscribeTokens(key_ring).make(contact, "email", "offers", address)
    return {
        "/u/": way_out,
        "/d/": OptInTokens(key_ring).make(WayIn(contact, "email", "offers", address, evidence)),
        "/c/": ClickTokens(key_ring).make(ClickedLink(tracked, 0)),
        "/p/": way_out,
    }


def application(database: Engine, key_ring: KeyRing, home: Path) -> FastAPI:
    url = database.url.render_as_string(hide_password=False)
    return create_app(Runtime(Settings(home=home), database, url, "redis://127.0.0.1:1/0", key_ring))


@pytest.fixture
def routes(shop: SmallShop, tmp_path: Path) -> list[Asked]:
    app = application(shop.database, shop.key_ring, tmp_path / "home")
    return every_route(app, good_tokens(shop.database, shop.key_ring))


def state(database: Engine) -> dict[str, str]:
    """Every row of every table, but for what is noted of somebody who looks."""
    with database.connect() as connection:
        tables = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        return {
            table: repr(sorted(connection.scalars(text(f"SELECT t::text || t.xmin::text FROM {table} t"))))
            for table in sorted(set(tables) - NOTES)
        }


def test_looking_changes_nothing_on_any_route(
    database: Engine, web: Web, routes: list[Asked], bearer: dict[str, str]
) -> None:
    """3.5.3: safe methods are safe.  A click is written down beside the ledger, and nothing else is."""
    before = state(database)
    answers = {}
    for asked in routes:
        if asked.is_safe:
            answers[str(asked)] = web.ask(asked.method, asked.path, headers=bearer).status
    wait_until(lambda: _clicks(database) > 0)

    assert state(database) == before
    assert not [asked for asked, status in answers.items() if status >= 500 and "readyz" not in asked], answers
    with database.connect() as connection:
        assert set(connection.scalars(text("SELECT kind || ' ' || source FROM feedback"))) == {"clicked link"}


def _clicks(database: Engine) -> int:
    with database.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM feedback")) or 0)


def test_every_answer_of_every_route_carries_the_safe_headers_and_no_cookie(
    web: Web, routes: list[Asked], bearer: dict[str, str]
) -> None:
    """3.4.1, 3.4.3 to 3.4.6, 14.3.2; 3.3: there is no cookie, so there is nothing a cookie could be misused for."""
    asked_for = [(asked.method, asked.path, headers) for asked in routes for headers in ({}, bearer)]
    asked_for += [
        ("GET", "/nowhere", {}),
        ("PATCH", "/healthz", {}),
        ("POST", "/v1/messages", {"Content-Length": "9" * 12}),
    ]
    for method, path, headers in asked_for:
        answer = web.ask(method, path, headers=headers)
        what = f"{method} {path}: {answer.status}"
        policy = answer.header("Content-Security-Policy") or ""
        assert policy.startswith("default-src 'none'"), what
        assert "frame-ancestors 'none'" in policy, what
        assert "unsafe-inline" not in policy or path.startswith("/sandbox/"), what
        assert "base-uri 'none'" in policy, what
        assert "script-src" not in policy, what
        assert answer.header("X-Content-Type-Options") == "nosniff", what
        assert answer.header("Referrer-Policy") == "no-referrer", what
        assert answer.header("Cache-Control") == "no-store", what
        assert answer.header("Strict-Transport-Security") == "max-age=31536000", what
        assert answer.header("Cross-Origin-Resource-Policy") == "same-origin", what
        assert answer.header("Set-Cookie") is None, what
        assert answer.header("Server") is None, what
        assert answer.header("Access-Control-Allow-Origin") is None, what
        assert answer.header("X-Request-Id"), what


def test_without_https_in_public_no_browser_is_told_to_insist_on_it(
    database: Engine, key_ring: KeyRing, tmp_path: Path
) -> None:
    """3.4.1: a laptop's http://127.0.0.1:8000 must stay reachable."""
    with serving(database, key_ring, tmp_path / "home") as web:
        assert web.ask("GET", "/healthz").header("Strict-Transport-Security") is None


def test_only_a_click_is_redirected_and_only_to_what_was_written_down(
    web: Web, routes: list[Asked], bearer: dict[str, str]
) -> None:
    """3.7.2: no open redirect; 4.1.2: no endpoint of a machine is redirected at all, to https neither."""
    for asked in routes:
        for path in (asked.path, f"{asked.path}/", f"{asked.path}?url=https://evil.example&next=//evil.example"):
            answer = web.ask(asked.method, path, headers=bearer | {"Host": "evil.example", "X-Forwarded-Proto": "http"})
            location = answer.header("Location")
            if asked.route.startswith("/c/") and location is not None:
                assert (answer.status, location) == (302, "https://small.example/")
            else:
                assert not 300 <= answer.status < 400, f"{asked}: {answer.status}"
                assert location is None or location.startswith("/v1/"), f"{asked}: {location}"


def test_a_method_that_a_route_does_not_have_is_refused(
    web: Web, routes: list[Asked], bearer: dict[str, str], database: Engine
) -> None:
    """4.1.4."""
    before = state(database)
    known: dict[str, set[str]] = {}
    for asked in routes:
        known.setdefault(asked.path, set()).add(asked.method)
    for path, methods in known.items():
        for method in {"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW"} - methods:
            assert web.ask(method, path, headers=bearer).status in (400, 404, 405, 501), f"{method} {path}"
    assert state(database) == before


def test_a_foreign_page_can_make_a_browser_do_nothing(
    database: Engine, web: Web, shop: SmallShop, tmp_path: Path
) -> None:
    """3.5.1: what changes something needs a key, a signature or a token that no other page knows, and no cookie."""
    app = application(database, shop.key_ring, tmp_path / "home")
    before = state(database)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for asked in every_route(app, {}):  # without a good token
        if not asked.is_safe:
            for kind in (form, {"Content-Type": "text/plain"}, {"Content-Type": "application/json"}):
                answer = web.ask(asked.method, asked.path, b"{}", FOREIGN | kind)
                assert answer.status in (400, 401, 403, 404, 405, 422, 429), f"{asked}: {answer.status}"
    assert state(database) == before


def test_a_body_that_is_too_large_is_refused_on_every_route(
    web: Web, routes: list[Asked], bearer: dict[str, str]
) -> None:
    """15.2.2: announced or not, no route takes more than it needs."""
    for asked in routes:
        announced = web.ask(asked.method, asked.path, headers=bearer | {"Content-Length": str(10**9)})
        assert announced.status == 413, asked
        if not asked.is_safe:
            assert _chunked(web, asked, bearer) in (400, 401, 403, 404, 413, 415, 422), asked


def _chunked(web: Web, asked: Asked, headers: dict[str, str]) -> int | None:
    """Return the status for a body of 6 MB without a length; None if the other side closed on us half-way."""
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=30)
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(96):
            sent += 65_536
            yield b" " * 65_536

    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request(asked.method, asked.path, body(), headers, encode_chunked=True)
    try:
        return connection.getresponse().status
    except (http.client.HTTPException, OSError):
        return 413  # it hung up: nothing was taken
    finally:
        connection.close()


def test_every_kind_of_token_gives_one_answer_for_all_that_are_none(
    web: Web, routes: list[Asked], key_ring: KeyRing, database: Engine
) -> None:
    """9.1.1, 16.5.1: nothing tells a guess that is nearly right from noise."""
    for begins, good in good_tokens(database, key_ring).items():
        if not any(asked.route.startswith(begins) for asked in routes):
            continue
        flipped = [good[:place] + ("A" if good[place] != "A" else "B") + good[place + 1 :] for place in (0, 5, -2, -12)]
        others = [token for other, token in good_tokens(database, key_ring).items() if token != good and other != "/p/"]
        stranger = KeyRing([b"x" * 32], b"h" * 32)
        wrong = [
            *flipped,
            *others,
            good_tokens_of(stranger)[begins],
            "",
            "x",
            good + "A",
            good[:-1],
            "a/b",
            "%00",
            "A" * 9_000,
        ]
        for method in ("GET", "POST"):
            answers = [web.ask(method, begins + token, headers={"Accept": "text/html"}) for token in wrong]
            seen = {(answer.status, answer.body, without_ids(answer)) for answer in answers}
            assert len(seen) == 1, begins
            assert {answer.status for answer in answers} <= {404, 405}, begins


def good_tokens_of(key_ring: KeyRing) -> dict[str, str]:
    way_out = UnsubscribeTokens(key_ring).make(1, "email", "offers", 1)
    return {
        "/u/": way_out, "/p/": way_out, "/c/": ClickTokens(key_ring).make(ClickedLink(1, 0)),
        "/d/": OptInTokens(key_ring).make(WayIn(1, "email", "offers", 1, 1)),
    }  # fmt: skip


def without_ids(answer: Answer) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k.lower(), v) for k, v in answer.headers if k.lower() not in ("date", "x-request-id")))


def test_whoever_tries_many_links_gets_short_answers_and_a_link_that_works_always_works(
    database: Engine, web: Web, shop: SmallShop
) -> None:
    """2.4.1: the limit is on what does not work; it never stands in front of an unsubscribe."""
    tokens = good_tokens(database, shop.key_ring)
    statuses = [web.ask("GET", f"/u/{number}").status for number in range(bad_links.AT_ONCE + 300)]
    assert set(statuses) == {404, 429}
    assert statuses[: bad_links.AT_ONCE] == [404] * bad_links.AT_ONCE
    held_back = [web.ask(method, path) for method in ("GET", "POST") for path in ("/u/x", "/d/x")]
    held_back += [web.ask("GET", "/c/x")]
    assert {answer.status for answer in held_back} <= {404, 429}
    assert any(answer.header("Retry-After") == "60" for answer in held_back)

    assert web.ask("GET", f"/u/{tokens['/u/']}").status == 200
    assert web.ask("GET", f"/c/{tokens['/c/']}").status == 302
    assert web.ask("POST", f"/u/{tokens['/u/']}", b"List-Unsubscribe=One-Click").status == 200


def _noted_address(database: Engine, key_ring: KeyRing) -> str:
    """Return the network address that the evidence of the newest withdrawal has."""
    with database.connect() as connection:
        row = connection.execute(
            text("""SELECT e.sealed, c.data_key FROM consent_event e JOIN contact c ON c.id = e.contact_id
                    WHERE e.action = 'withdrawn' ORDER BY e.id DESC LIMIT 1""")
        ).one()
    return str(key_ring.open_data_key(row.data_key).open(row.sealed)["ip"])


@pytest.mark.parametrize(
    ("trusted", "noted"), [(None, "127.0.0.1"), ("10.9.8.7", "127.0.0.1"), ("127.0.0.0/8", "203.0.113.9")]
)
def test_only_a_proxy_that_is_named_says_for_whom_it_asks(
    shop: SmallShop, key_ring: KeyRing, tmp_path: Path, trusted: str | None, noted: str
) -> None:
    """4.1.3, 15.3.4."""
    forged = {
        "X-Forwarded-For": "198.51.100.1, 203.0.113.9",
        "X-Real-IP": "198.51.100.2",
        "Forwarded": "for=198.51.100.3",
    }
    with serving(shop.database, key_ring, tmp_path / "home", trusted_proxies=trusted) as web:
        token = good_tokens(shop.database, key_ring)["/u/"]
        assert web.ask("POST", f"/u/{token}", b"List-Unsubscribe=One-Click", forged).status == 200

    assert _noted_address(shop.database, key_ring) == noted


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "X-Forwarded-Host"])
def test_the_mailbox_of_the_sandbox_is_shown_through_no_proxy(
    shop: SmallShop, key_ring: KeyRing, tmp_path: Path, header: str
) -> None:
    """4.1.3: a proxy on this machine makes the whole world look as if it sat here."""
    with serving(shop.database, key_ring, tmp_path / "home") as web:
        assert web.ask("GET", "/sandbox").status == 200
        assert web.ask("GET", "/sandbox", headers={header: "127.0.0.1"}).status == 404


def test_nothing_that_is_sent_comes_back_in_a_header(web: Web, routes: list[Asked], bearer: dict[str, str]) -> None:
    """1.2.1: no CRLF, encoded or not, becomes a header of an answer."""
    for asked in routes:
        for evil in ("%0d%0aX-Evil:%201", "%0aX-Evil:1", "%E5%98%8A%E5%98%8DX-Evil:1"):
            headers = bearer | {"X-Request-Id": "abc%0d%0aX-Evil: 1", "Idempotency-Key": "a%0d%0aX-Evil: 1"}
            answer = web.ask(asked.method, f"{asked.path}?to={evil}", headers=headers)
            again = web.ask(asked.method, f"{asked.path}{evil}", headers=headers)
            for one in (answer, again):
                assert one.header("X-Evil") is None, asked
                assert "evil" not in str(one.headers).lower(), asked
