"""A real browser for the public pages: an installed Chromium, driven by Playwright, and axe to judge what it shows."""

from __future__ import annotations

import collections
import functools
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

_PNG = b"\x89PNG\r\n\x1a\n"

ROOT = Path(__file__).resolve().parents[1]
SCREENSHOTS = ROOT / "docs" / "screenshots"

NARROW, WIDE = {"width": 360, "height": 780}, {"width": 1280, "height": 900}

_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
_AXE = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]},
    "resultTypes": ["violations"],
}


def chromium() -> str:
    """Return the path of an installed Chromium, or skip the test."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium is installed here (apt-get install chromium)")
    return found


@contextmanager
def a_browser() -> Iterator[Browser]:
    """A browser for some tests; each takes contexts of its own."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = _launch(playwright, path)
        yield browser
        browser.close()


def _launch(playwright: Playwright, path: str) -> Browser:
    return playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)


def judge(page: Page) -> list[str]:
    """Return what axe finds serious or critical on the page, a line each."""
    found = _axe().run(page, options=_AXE)
    return [
        f"{one['impact']}: {one['id']} at {node['target']}: {node['html'][:160]}"
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@functools.cache
def _axe() -> Axe:
    return Axe()


def show(page: Page, html: str, headers: Mapping[str, str]) -> None:
    """Show a page that the server answered earlier, under the headers that it came with."""
    page.unroute_all()
    page.route("**/*", lambda route: route.fulfill(body=html, headers=dict(headers), status=200))
    page.goto("http://localhost/", wait_until="load")


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page for the documents, if DISPATCHER_SCREENSHOTS is set (`make screenshots`)."""
    image = small_png(page.screenshot(full_page=True, animations="disabled"))
    assert len(image) < 100_000, f"the picture {name} is too large to keep"
    if os.environ.get("DISPATCHER_SCREENSHOTS"):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        (SCREENSHOTS / f"{name}.png").write_bytes(image)


def small_png(image: bytes) -> bytes:
    """Return a picture with a palette of at most 256 colours: pages have few, but for the edges of their letters.

    Colours that differ little become the most frequent of them.
    """
    width, height, pixels = _pixels(image)
    for bits in (0, 2, 3, 4, 5):
        shades: dict[tuple[int, ...], collections.Counter[bytes]] = collections.defaultdict(collections.Counter)
        counted = collections.Counter(pixels)
        for colour, number in counted.items():
            shades[tuple(part >> bits for part in colour)][colour] += number
        if len(shades) <= 256:
            break
    palette = [most.most_common(1)[0][0] for most in shades.values()]
    places = {key: place for place, key in enumerate(shades)}
    index = {colour: places[tuple(part >> bits for part in colour)] for colour in counted}
    rows = (bytes(map(index.__getitem__, pixels[y * width : (y + 1) * width])) for y in range(height))
    body = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", head), (b"PLTE", b"".join(palette)), (b"IDAT", body), (b"IEND", b""))
    return _PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def _pixels(image: bytes) -> tuple[int, int, list[bytes]]:
    """Return width, height and the colours of a PNG of eight bits a part, as Chromium writes it: not interlaced."""
    at, body, width, height, parts = len(_PNG), b"", 0, 0, 0
    while at < len(image):
        (length,) = struct.unpack(">I", image[at : at + 4])
        kind, data = image[at + 4 : at + 8], image[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colours = struct.unpack(">IIBB", data[:10])
            parts = {2: 3, 6: 4}[colours]
            assert depth == 8
        body += data if kind == b"IDAT" else b""
        at += length + 12
    raw, step, before, pixels = zlib.decompress(body), width * parts, bytearray(width * parts), []
    for y in range(height):
        row = _unfiltered(raw[y * (step + 1)], bytearray(raw[y * (step + 1) + 1 : (y + 1) * (step + 1)]), before, parts)
        pixels += [bytes(row[x : x + 3]) for x in range(0, step, parts)]
        before = row
    return width, height, pixels


def _unfiltered(kind: int, row: bytearray, above: bytearray, parts: int) -> bytearray:
    """Return a row as it was before PNG's filter (RFC 2083, section 6)."""
    for x in range(len(row)):
        left, up = (row[x - parts] if x >= parts else 0), above[x]
        corner = above[x - parts] if x >= parts else 0
        guess = left + up - corner
        nearest = min((left, up, corner), key=lambda part: abs(guess - part))
        row[x] = (row[x] + (0, left, up, (left + up) // 2, nearest)[kind]) & 0xFF
    return row


def watched(context: BrowserContext) -> tuple[Page, list[str]]:
    """Return a new page, and a list that fills with whatever it complains of, or asks another host for."""
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if not _is_here(request.url) else None)
    return page, complaints


def _is_here(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "http://localhost/"))


def settings(*, dark: bool = False, size: Mapping[str, int] = WIDE, script: bool = True, **more: Any) -> dict[str, Any]:
    """Return what a context is made with."""
    return {
        "color_scheme": "dark" if dark else "light", "viewport": dict(size), "java_script_enabled": script, **more
    }  # fmt: skip
