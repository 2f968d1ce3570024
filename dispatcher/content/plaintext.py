"""The text part of a mail, made from its HTML part.

Converting HTML takes milliseconds, so the *template* is converted once where that is faithful: its Jinja2 pieces travel
through the conversion as marks, and the text with the pieces put back is a template of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import lxml.html  # type: ignore[import-untyped]  # inscriptis reads trees of lxml
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.html_engine import Inscriptis
from inscriptis.model.config import ParserConfig
from jinja2 import TemplateSyntaxError
from lxml.etree import ParserError  # type: ignore[import-untyped]

from dispatcher.content.sandbox import tokens
from dispatcher.content.sources import sources_of

_LOOK = ParserConfig(css=CSS_PROFILES["strict"])
_PLACEMENT = {"table", "thead", "tbody", "tfoot", "tr", "td", "th"}  # tags of a table that only places its content
_OPEN, _CLOSE = "\ue000", "\ue001"  # private use: no text has them
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_SPACES_AT_THE_END = re.compile(r"[ \t\xa0]+$", re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n{3,}")


def readable_source(files: Mapping[str, str], language: str | None) -> str:
    """Return subject and body of a template in one language as text, its expressions as they are written."""
    bodies = (f"body.{language}.txt", f"body.{language}.html", "body.txt", "body.html")
    texts = {name: source.text for name, source in sources_of(files).items()}
    body = next((name for name in bodies if name in texts), None)
    subject = texts.get(f"subject.{language}.txt", texts.get("subject.txt", "")).strip()
    source = texts[body] if body else ""
    return f"{subject}\n\n{text_of_html(source) if body and body.endswith('.html') else source}".strip()


def text_of_html(html: str) -> str:
    """Return the HTML as plain text: links as `label <address>`, images by their description."""
    tree = parse_html(html)
    if tree is None:
        return ""
    _flatten_tables(tree)
    for image in [*tree.iter("img")]:
        image.tag, image.text = "span", image.get("alt") or ""
    for link in tree.iter("a"):
        _write_out(link)
    return tidy(Inscriptis(tree, _LOOK).get_text())


def parse_html(html: str) -> lxml.html.HtmlElement | None:
    """Return the tree of an HTML text, None if there is nothing in it."""
    try:
        return lxml.html.document_fromstring(html.encode(), parser=lxml.html.HTMLParser(encoding="utf-8"))
    except ParserError:  # nothing but comments or white space
        return None


def _flatten_tables(tree: lxml.html.HtmlElement) -> None:
    """Turn tables that only place their content into blocks; a table of figures stays one."""
    inside = []
    for element in tree.iter(*_PLACEMENT):
        table = element if element.tag == "table" else next(element.iterancestors("table"), None)
        if table is None or table.get("role") in ("presentation", "none"):
            inside.append(element)
    for element in inside:
        element.tag = "p" if element.tag in ("td", "th") else "div"


def _write_out(link: lxml.html.HtmlElement) -> None:
    address, label = (link.get("href") or "").strip(), " ".join(link.text_content().split())
    if not address.startswith(("http://", "https://", "mailto:", _OPEN)) or label == address.removeprefix("mailto:"):
        return
    written = f" <{address.removeprefix('mailto:')}>" if label else address
    if len(link):
        link[-1].tail = f"{(link[-1].tail or '').rstrip()}{written}"
    else:
        link.text = f"{(link.text or '').rstrip()}{written}"


def tidy(text: str) -> str:
    """Return the text without white space at line ends and with at most one empty line in a row."""
    return _EMPTY_LINES.sub("\n\n", _SPACES_AT_THE_END.sub("", text)).strip() + "\n"


def text_template_of(source: str) -> str | None:
    """Return the text template that an HTML template stands for, None if its pieces do not survive in order.

    Whether both really say the same is for the caller to try.
    """
    try:
        marked, pieces, statements = _marked(source)
    except TemplateSyntaxError:
        return None
    tree = parse_html(marked)
    if tree is None or any(table.get("role") not in ("presentation", "none") for table in tree.iter("table")):
        return None  # a table of figures is laid out by the length of what stands in it
    text = text_of_html(marked)
    survivors = [int(number) for number in _MARK.findall(text)]
    if any(brace in text for brace in ("{{", "{%", "{#")) or [n for n in survivors if n in statements] != statements:
        return None
    return _MARK.sub(lambda mark: pieces[int(mark[1])], text)


def _marked(source: str) -> tuple[str, list[str], list[int]]:
    """Return the source with a mark for each Jinja2 piece, the pieces, and which of them are statements."""
    marked: list[str] = []
    pieces: list[str] = []
    statements: list[int] = []
    piece = ""
    for _, kind, text in tokens(source):
        if kind == "data" and not piece:
            marked.append(text)
        elif kind.startswith(("comment", "raw")):
            if kind.startswith("raw"):
                raise TemplateSyntaxError("raw text is not converted", 1)
        else:
            piece += text
            if kind in ("variable_end", "block_end"):
                if kind == "block_end":
                    statements.append(len(pieces))
                marked.append(f"{_OPEN}{len(pieces)}{_CLOSE}")
                pieces.append(piece.strip())
                piece = ""
    return "".join(marked), pieces, statements
