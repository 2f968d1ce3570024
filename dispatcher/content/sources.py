"""The sources of a template: its files, with the words of each language and the layout put in.

``{{ words.NAME }}`` stands for a text of words.yaml, ``{{ body }}`` in a layout for the body of a mail.  Both are put
in as they are written, before anything is read as a template; so a template still names no file, and what is put in
is checked, bounded and escaped like the rest.  Nothing here raises: what cannot be put in stays as it stands, for
`check` to find.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from dispatcher.content.folder import LAYOUT, MAX_FILE_BYTES, META, SHARED_WORDS, WORDS, is_document, split_name
from dispatcher.content.locales import closest_locale, normal_locale
from segments.errors import InvalidDocument
from segments.yaml_lines import Document, load_document

MOST_LANGUAGES = 100  #: each is a copy of every file that has words

_WORD = re.compile(r"\{\{ *words\.(\w+) *\}\}")
_BODY = re.compile(r"^[ \t]*\{\{ *body *\}\}[ \t]*\n", re.MULTILINE)
_UNQUOTED = re.compile(r":\s+\{[{%]")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LANG = re.compile(r"<html\b[^>]*?\slang\s*=\s*[\"']?([A-Za-z]{2,3}(?:-[A-Za-z0-9]+)*)", re.IGNORECASE)
_DEFAULT_LANGUAGE = "en"


@dataclass(frozen=True, slots=True)
class Source:
    """One part of a template in one language, and where each of its lines is written."""

    file: str  #: where most of it is written; ../layout.html is beside the template's folder
    text: str
    places: tuple[tuple[str, int], ...]  #: of each line of the text: file and line there
    is_too_long: bool = False  #: with its words it would be, so they are not in it

    def place(self, position: int) -> tuple[str, int]:
        """Return file and line of what stands at this position of the text."""
        return self.places[self.text.count("\n", 0, position)]


@dataclass(frozen=True, slots=True)
class Words:
    """What a words.yaml says, and what is wrong with it, by line."""

    languages: dict[str, dict[str, str]] = field(default_factory=dict)  #: the first is the default
    common: dict[str, str] = field(default_factory=dict)  #: the same in every language
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)  #: of each word, by language and name, or name
    objections: tuple[tuple[int, str], ...] = ()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.common).union(*self.languages.values())

    def language_for(self, locale: str) -> str | None:
        """Return the language that a reader of this locale gets; None if there is none at all."""
        return closest_locale(locale, self.languages) or next(iter(self.languages), None)

    def in_language(self, locale: str) -> dict[str, str]:
        language = self.language_for(locale)
        return self.common | (self.languages[language] if language else {})


def words_of(files: Mapping[str, str], file: str = WORDS) -> Words:
    """Return the words of a template, or those of all templates of its channel; no words if there is no such file."""
    return _read(file, files[file]) if file in files else Words()


@lru_cache(maxsize=64)  # one file is asked about many times while a template is checked
def _read(file: str, source: str) -> Words:
    try:
        document = load_document(source, file)
    except InvalidDocument as error:
        return Words(objections=tuple(_line_and_reason(each, file, source) for each in error.findings))
    languages: dict[str, dict[str, str]] = {}
    common: dict[str, str] = {}
    if (many := sum(isinstance(value, dict) for value in document.data.values())) > MOST_LANGUAGES:
        return Words(objections=((1, f"has {many:,} languages; at most {MOST_LANGUAGES} are allowed"),))
    for key, value in document.data.items():
        if isinstance(value, dict):
            languages[key] = {name: word.rstrip("\n") for name, word in value.items() if isinstance(word, str)}
        elif isinstance(value, str):
            common[key] = value.rstrip("\n")
    lines = {(key, name): document.line_of((key, name)) for key, words in languages.items() for name in words}
    return Words(
        languages, common, lines | {(name,): document.line_of((name,)) for name in common},
        tuple(_objections(document)),
    )  # fmt: skip


def _line_and_reason(finding: str, file: str, text: str) -> tuple[int, str]:
    number, _, reason = finding.removeprefix(f"{file}:").partition(": ")
    line = int(number) if number.isdecimal() else 1
    unquoted = _UNQUOTED.search("".join(text.splitlines()[line - 1 : line]))
    return line, "a text that begins with { needs quotes around it" if unquoted else reason or finding


def _objections(document: Document) -> Iterator[tuple[int, str]]:
    for key, value in document.data.items():
        if isinstance(value, dict) and normal_locale(key) != key:
            yield document.line_of((key,)), f"{key!r} is not how a language is written; write it like pt-BR or ro"
        named = {(key, name): word for name, word in value.items()} if isinstance(value, dict) else {(key,): value}
        for path, word in named.items():
            if not _NAME.fullmatch(path[-1]):
                yield document.line_of(path), f"{path[-1]!r}: a word's name has lower-case letters, digits and _"
            if not isinstance(word, str):
                yield document.line_of(path), f"{path[-1]} is not a text; put it in quotes"
    languages = {language: words for language, words in document.data.items() if isinstance(words, dict)}
    everywhere = dict.fromkeys(name for words in languages.values() for name in words)
    for language, words in languages.items():
        for name in everywhere:
            if name not in words:
                yield document.line_of((language,)), f"{language} has no {name}, as the other languages have"


def default_language(files: Mapping[str, str]) -> str:
    """Return the language of what has no locale in its name: the first of the words, else what the HTML says."""
    for file in (WORDS, SHARED_WORDS):
        if languages := words_of(files, file).languages:
            return next(iter(languages))
    found = _LANG.search(files.get("body.html", ""))
    return (normal_locale(found[1]) if found else "") or _DEFAULT_LANGUAGE


def sources_of(files: Mapping[str, str]) -> dict[str, Source]:
    """Return the parts of a template as if each language had a file of its own: `body.de.html` and so on.

    What has no place in a template is left as it is.
    """
    own, shared = words_of(files), words_of(files, SHARED_WORDS)
    default = default_language(files)
    others = [language for language in own.languages if language != default and normal_locale(language) == language]
    sources = {}
    for name, text in files.items():
        if name in (META, WORDS, SHARED_WORDS, LAYOUT):
            continue
        pieces = list(_in_layout(name, text, files.get(LAYOUT)))
        languages = {name: default}
        try:
            part, locale, kind = split_name(name)
        except ValueError:
            part, locale, kind = name, None, ""
        if locale:
            languages = {name: locale}
        elif kind and any(_WORD.search(piece) for _, _, piece in pieces):
            written = {f"{part}.{language}.{kind}": language for language in others}
            languages |= {each: language for each, language in written.items() if each not in files}
        for each, language in languages.items():
            words = shared.in_language(language) | own.in_language(language)
            whole = sum(_filled_length(piece, words) for _, _, piece in pieces)
            if whole > MAX_FILE_BYTES:
                sources[each] = replace(_joined(name, pieces), is_too_long=True)
                continue
            sources[each] = _joined(name, [(file, line, _filled(piece, words)) for file, line, piece in pieces])
    return sources


def has_place_for_body(layout: str) -> bool:
    """Whether the layout has exactly one `{{ body }}`, on a line of its own."""
    return len(_BODY.findall(layout)) == 1


def used_words(texts: Iterable[str]) -> set[str]:
    """Return the names of the words that stand in these texts."""
    return {name for text in texts for name in _WORD.findall(text)}


def _in_layout(name: str, text: str, layout: str | None) -> Iterator[tuple[str, int, str]]:
    """Yield file, first line and text of what follows on each other: the body within the layout, if it has one."""
    found = _BODY.search(layout) if layout and name.startswith("body.") and name.endswith(".html") else None
    if layout is None or found is None or is_document(text) or not has_place_for_body(layout):
        yield name, 1, text
        return
    yield LAYOUT, 1, layout[: found.start()]
    yield name, 1, text if text.endswith("\n") else f"{text}\n"
    yield LAYOUT, layout.count("\n", 0, found.end()) + 1, layout[found.end() :]


def _filled_length(text: str, words: Mapping[str, str]) -> int:
    """Return how many characters the text has with the words put in, without making it: it may be any number."""
    return len(text) + sum(len(words.get(name, "")) for name in _WORD.findall(text))


def _filled(text: str, words: Mapping[str, str]) -> str:
    """Return the text with the words put in; one of several lines is put on one, so that lines can be counted."""
    return _WORD.sub(lambda found: words[found[1]].replace("\n", " ") if found[1] in words else found[0], text)


def _joined(name: str, pieces: list[tuple[str, int, str]]) -> Source:
    places = [(file, first + number) for file, first, text in pieces for number in range(text.count("\n"))]
    file, first, last = pieces[-1]
    return Source(name, "".join(text for _, _, text in pieces), (*places, (file, first + last.count("\n"))))
