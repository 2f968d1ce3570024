"""A template on disk: a folder of few small files."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import ValidationError

from dispatcher.content.locales import normal_locale
from dispatcher.definitions import TemplateMeta
from dispatcher.errors import InvalidDefinition

META = "meta.yaml"
WORDS = "words.yaml"
#: What mails share lies beside their folders; a template that uses it keeps a copy of its own, so runs freeze that too.
SHARED = ("layout.html", "words.yaml")
LAYOUT, SHARED_WORDS = (f"../{name}" for name in SHARED)
MAX_FILE_BYTES = 200_000
_HASH_FORMAT = 1  #: raised when the same files would render to something else

_NAME = re.compile(r"(?P<part>subject|preheader|body)(?:\.(?P<locale>[^.]+))?\.(?P<kind>txt|html)")
_DOCUMENT = re.compile(r"<(?:!doctype|html)\b", re.IGNORECASE)
_PARTS = {("subject", "txt"), ("preheader", "txt"), ("body", "html"), ("body", "txt")}


def read_template_folder(path: Path) -> dict[str, str]:
    """Return file name -> text, the layout and words that it shares included, if a body is to be put into a layout.

    InvalidDefinition names every file that has no place in a template.
    """
    if not path.is_dir():
        raise InvalidDefinition([f"{path}: is not a folder"])
    files: dict[str, str] = {}
    findings = []
    for file in sorted(path.iterdir()):
        if file.name.startswith("."):  # what editors and file managers leave behind
            continue
        try:
            if file.name not in (META, WORDS):
                split_name(file.name)
            files[file.name] = _read(file, path)
        except ValueError as error:
            findings.append(f"{file}: {error}")
    if any(name.startswith("body.") and name.endswith(".html") and not is_document(files[name]) for name in files):
        for name in SHARED:
            file = path.parent / name
            try:
                files |= {f"../{name}": _read(file, path.parent)} if file.exists() else {}
            except ValueError as error:
                findings.append(f"{file}: {error}")
    if findings:
        raise InvalidDefinition(findings)
    return files


def is_document(html: str) -> bool:
    """Whether the HTML is a whole document, which is not put into a layout."""
    return _DOCUMENT.search(html) is not None


def shown_path(folder: str, file: str) -> str:
    """Return where a file of the template in `folder` lies, like templates/email/layout.html."""
    return posixpath.normpath(f"{folder}/{file}")


def _read(file: Path, folder: Path) -> str:
    """Return the text of one file; ValueError says why it cannot be part of a template."""
    real = file.resolve()
    if file.is_symlink() and folder.resolve() not in real.parents:
        raise ValueError("is a link that leads out of the folder")
    if not real.is_file():
        raise ValueError("is not a file")
    with real.open("rb") as opened:
        content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES:,} bytes")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"is not UTF-8 (line {line}); save it as UTF-8") from None


def split_name(name: str) -> tuple[str, str | None, str]:
    """Return part, locale and kind of a name, like body, pt-BR and html; ValueError if templates have no such file."""
    found = _NAME.fullmatch(name)
    if found is None or (found["part"], found["kind"]) not in _PARTS:
        raise ValueError(
            "has no place in a template; there are meta.yaml, words.yaml, subject.txt, preheader.txt, body.html, "
            "body.txt and their variants like body.pt-BR.html"
        )
    locale = found["locale"]
    if locale is not None and normal_locale(locale) != locale:
        raise ValueError(f"{locale!r} is not how a locale is written; write it like pt-BR, ro or zh-Hant-TW")
    return found["part"], locale, found["kind"]


def template_hash(files: Mapping[str, str]) -> str:
    """Return the content's own name: equal for equal files, other for anything else."""
    return f"t{_HASH_FORMAT}-{hashlib.sha256(orjson.dumps(sorted(files.items()))).hexdigest()}"


def meta_of(files: Mapping[str, str]) -> TemplateMeta:
    """Return what meta.yaml says; InvalidDefinition with the line otherwise."""
    if META not in files:
        raise InvalidDefinition([f"{META}: is missing; it says class: marketing and a topic, or class: transactional"])
    try:
        content: Any = yaml.safe_load(files[META])
        return TemplateMeta.model_validate(content)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidDefinition([f"{META}:{line}: {error.problem or 'cannot be read'}"]) from None
    except (yaml.YAMLError, RecursionError):
        raise InvalidDefinition([f"{META}:1: cannot be read"]) from None
    except ValidationError as error:
        raise InvalidDefinition([_finding(files[META], problem) for problem in error.errors()]) from None


def _finding(text: str, problem: Any) -> str:
    field = str(problem["loc"][0]) if problem["loc"] else ""
    lines = (number for number, line in enumerate(text.splitlines(), 1) if field and line.startswith(f"{field}:"))
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{META}:{next(lines, 1)}: {field}{': ' if field else ''}{reason}"
