"""What is wrong with a template, found before anybody gets it: `template check` and `apply` ask here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from dispatcher.content.context import KNOWN, OWN_DATA
from dispatcher.content.folder import LAYOUT, MAX_FILE_BYTES, META, SHARED_WORDS, WORDS, meta_of, shown_path, split_name
from dispatcher.content.plaintext import parse_html
from dispatcher.content.samples import UNSUBSCRIBE_URL, sample_contexts
from dispatcher.content.sandbox import Compiled, RenderFailed, TemplateInvalid
from dispatcher.content.sms import sms_segments
from dispatcher.content.sources import (
    Source,
    default_language,
    has_place_for_body,
    sources_of,
    used_words,
    words_of,
)
from dispatcher.content.template import Content, Template, Variant
from dispatcher.definitions import TemplateMeta, Topic
from dispatcher.errors import InvalidDefinition

CLIPPED_BYTES = 102_400  #: larger mails are cut off by Gmail, footer and way out included
LONG_SUBJECT = 150
MOST_SMS_PARTS = 10

_ROOM_LEFT = 0.9
_MISSING = "is missing"
_SMS_FILES = "an SMS has only body.txt and its variants"
_ONE_LINE = "has a second line; a {} is one line"
_PLAIN_LINK = re.compile(r"""href\s*=\s*["']?http://""", re.IGNORECASE)
_UNQUOTED = re.compile(r"""<[a-z](?:[^<>"']|"[^"]*"|'[^']*')*?=\{\{""", re.IGNORECASE)
_LANG = re.compile(r"<html\b[^>]*?\slang\s*=\s*[\"']([^\"'{]+)[\"']", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to put right; a warning may stay."""

    file: str  #: like templates/email/christmas/body.html
    line: int
    message: str
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {'warning: ' if self.level == 'warning' else ''}{self.message}"


def check_template(channel: str, name: str, files: Mapping[str, str], topics: Mapping[str, Topic]) -> list[Finding]:
    """Return every finding, by file and line; none at all means the template can be sent in each of its languages."""
    sources = sources_of(files)
    found = {*_check_files(channel, files, sources), *_check_shared(files, sources)}
    meta, words = _read_meta(files, found), words_of(files).names | words_of(files, SHARED_WORDS).names
    in_words = set(_check_words(files))  # said where they are written, not again wherever they are put in
    compiled = [] if in_words else _compile(sources, found)
    found |= in_words or set(_check_sources(files, sources))
    if meta:
        found.update(_check_topic(channel, meta, files[META], topics))
    for source in compiled:
        found.update(_check_names(source, words, name))
        if meta and meta.class_ != "transactional" and "confirm_url" in source.variables:
            found.add(Finding(source.file, 1, "confirm_url is only in opt-in confirmations, which are transactional"))
        if meta and (meta.class_, name) != ("security", OWN_DATA) and "own_data_url" in source.variables:
            found.add(Finding(source.file, 1, f"own_data_url is only in template {OWN_DATA}, of class security"))
    if meta and meta.class_ == "transactional":
        found.update(_check_needed(channel, compiled, "confirm_url", "link to confirm"))
    if name == OWN_DATA:
        found.update(_check_needed(channel, compiled, "own_data_url", "link to their data", always=True))
    if meta and len(compiled) == len(sources) and not _cannot_be_made(channel, found):
        found.update(_check_contents(Template(channel, name, files), found))
    place = f"templates/{channel}/{name}"
    placed = {Finding(shown_path(place, each.file), each.line, each.message, each.level) for each in found}
    return sorted(placed, key=lambda each: (each.file, each.line, each.message))


def _cannot_be_made(channel: str, found: set[Finding]) -> bool:
    """Whether the files are no template at all, so that there is nothing to render."""
    body = "body.html" if channel == "email" else "body.txt"
    return any(each.file == body and each.message == _MISSING for each in found) or any(
        each.message.startswith("has no place") for each in found
    )


# --- each file by itself


def _check_files(channel: str, files: Mapping[str, str], sources: Mapping[str, Source]) -> Iterator[Finding]:
    """Which files there are and are not."""
    parts: dict[str, set[str | None]] = {"subject": set(), "preheader": set(), "html": set(), "txt": set()}
    for file in sources:
        try:
            part, locale, kind = split_name(file)
        except ValueError as error:
            yield Finding(file, 1, str(error))
            continue
        parts[kind if part == "body" else part].add(locale)
        if channel == "sms" and (part, kind) != ("body", "txt"):
            yield Finding(file, 1, _SMS_FILES)
    if channel == "sms":
        if WORDS in files:
            yield Finding(WORDS, 1, _SMS_FILES)
        if None not in parts["txt"]:
            yield Finding("body.txt", 1, _MISSING)
        return
    if None not in parts["html"] and None not in parts["txt"]:
        yield Finding("body.html", 1, _MISSING)
    if None not in parts["subject"]:
        yield Finding("subject.txt", 1, "is missing; a mail needs a subject")
    body = "html" if parts["html"] else "txt"
    for locale in sorted((parts["txt"] - parts[body]) - {None}, key=str):
        yield Finding(f"body.{locale}.txt", 1, f"is never used: there is no body.{locale}.html")
    for part in ("subject", "preheader"):
        for locale in parts[part]:
            source = sources[f"{part}.{locale}.txt" if locale else f"{part}.txt"]
            if "\n" in source.text.strip():
                yield Finding(source.file, 2, _ONE_LINE.format(part))
        if parts[part]:
            for locale in sorted((parts[body] - parts[part]) - {None}, key=str):
                yield _other_language(part, f"body.{locale}.{body}", str(locale), files)


def _other_language(part: str, body: str, locale: str, files: Mapping[str, str]) -> Finding:
    if body in files:
        message = f"is missing, so {body} goes out under the {part} of another language"
        return Finding(f"{part}.{locale}.txt", 1, message, "warning")
    return Finding(f"{part}.txt", 1, f"has no word of {WORDS} in it, so it is the same in every language", "warning")


def _check_words(files: Mapping[str, str]) -> Iterator[Finding]:
    """What is wrong with the words by themselves: each is a piece of a template, whole and with names we know."""
    for file in (WORDS, SHARED_WORDS):
        words = words_of(files, file)
        yield from (Finding(file, line, reason) for line, reason in words.objections)
        for path, line in words.lines.items():
            word = words.languages[path[0]][path[1]] if len(path) > 1 else words.common[path[0]]
            try:
                yield from _check_names(Compiled(file, word, html=True, places=((file, line),)))
            except TemplateInvalid as error:
                yield Finding(file, line, f"{path[-1]}: {error.reason}")


def _check_shared(files: Mapping[str, str], sources: Mapping[str, Source]) -> Iterator[Finding]:
    """What does not go together: the layout with the body, words with where they stand, languages with languages."""
    if LAYOUT in files and not has_place_for_body(files[LAYOUT]):
        yield Finding(LAYOUT, 1, "has no place for the body; write {{ body }} once, on a line of its own")
    own, shared = words_of(files), words_of(files, SHARED_WORDS)
    used = used_words(text for file, text in files.items() if file not in (META, WORDS, SHARED_WORDS))
    for path, line in own.lines.items():
        if path[-1] not in used:
            yield Finding(WORDS, line, f"words.{path[-1]} is never used", "warning")
    locales = {split_name(name)[1] or default_language(files) for name in sources if _is_known(name)}
    for locale in sorted(locales) if shared.languages else ():
        language = shared.language_for(locale) or ""
        if language.split("-")[0] != locale.split("-")[0]:
            yield Finding(SHARED_WORDS, 1, f"has no {locale}, so its words are in {language} there", "warning")


def _read_meta(files: Mapping[str, str], found: set[Finding]) -> TemplateMeta | None:
    try:
        return meta_of(files)
    except InvalidDefinition as error:
        for finding in error.findings:  # "meta.yaml:2: reason" or "meta.yaml: reason"
            line, _, message = finding.removeprefix(f"{META}:").strip().partition(":")
            at_line = line.isdecimal()
            found.add(Finding(META, int(line) if at_line else 1, message.strip() if at_line else f"{line}:{message}"))
        return None


def _compile(sources: Mapping[str, Source], found: set[Finding]) -> list[Compiled]:
    compiled = []
    for name, source in sources.items():
        if source.is_too_long:
            found.add(Finding(source.file, 1, f"is larger than {MAX_FILE_BYTES:,} bytes with its words put in"))
            continue
        try:
            compiled.append(Compiled(source.file, source.text, html=name.endswith(".html"), places=source.places))
        except TemplateInvalid as error:
            found.add(Finding(error.file, error.line, error.reason))
    return compiled


def _check_sources(files: Mapping[str, str], sources: Mapping[str, Source]) -> Iterator[Finding]:
    """What can be seen without rendering."""
    for name, source in sources.items():
        if not name.endswith(".html"):
            continue
        for place in _places_of(_PLAIN_LINK, source):
            yield Finding(*place, "an http:// link can be read and changed on its way; write https://", "warning")
        for place in _places_of(_UNQUOTED, source):
            yield Finding(*place, 'a value stands in an attribute without quotes; write ="{{ ... }}"')
        _, locale, _ = split_name(name) if _is_known(name) else ("", None, "")
        found = _LANG.search(source.text)
        if locale and found and found[1].split("-")[0] != locale.split("-")[0]:
            right = locale if name in files and source.file == source.place(found.start())[0] else "{{ locale }}"
            yield Finding(*source.place(found.start()), f'says lang="{found[1]}"; write lang="{right}"')


def _is_known(file: str) -> bool:
    try:
        split_name(file)
    except ValueError:
        return False
    return True


def _places_of(pattern: re.Pattern[str], source: Source) -> Iterator[tuple[str, int]]:
    return (source.place(found.end()) for found in pattern.finditer(source.text))


def _check_topic(channel: str, meta: TemplateMeta, source: str, topics: Mapping[str, Topic]) -> Iterator[Finding]:
    if meta.topic is None:
        return
    lines = (number for number, line in enumerate(source.splitlines(), 1) if line.startswith("topic"))
    line = next(lines, 1)
    if meta.topic not in topics:
        known = ", ".join(sorted(topics)) or "none yet"
        yield Finding(META, line, f"there is no topic {meta.topic}; dispatcher.toml has {known}")
    elif channel not in topics[meta.topic].channels:
        yield Finding(META, line, f"topic {meta.topic} is not offered on {channel}")


def _check_names(source: Compiled, words: frozenset[str] | None = None, template: str = "") -> Iterator[Finding]:
    """Names that no message has, also where no sample would come by; of `words`, those that were not put in.

    Without `words` the source is itself one of them.
    """
    for line, path in source.paths:
        first, *rest = path.split(".")
        if first not in source.variables:  # set in the template itself
            continue
        place = source.place(line)
        if first == "words" and words is None:
            yield Finding(*place, f"a word holds no other word; write out what {path} says")
        elif first == "words":
            assert words is not None
            if rest and rest[0] in words:
                yield Finding(*place, f"a word stands by itself: write {{{{ words.{rest[0]} }}}} and no more")
            else:
                yield Finding(*place, _unknown_word(path, words, template if place[0] == LAYOUT else ""))
        elif first not in KNOWN:
            yield Finding(*place, f"{first} is not known{_hint(first, KNOWN)}")
        else:
            fields = KNOWN[first]
            if fields is not None and rest and rest[0] not in fields:
                yield Finding(*place, f"{first}.{rest[0]} is not known{_hint(rest[0], fields)}")


def _unknown_word(path: str, words: frozenset[str], template: str) -> str:
    """What is wrong with a word nobody says; `template`: the one for which the layout asks for it."""
    hint = _hint(path.partition(".")[2], words or ("no words",))
    if not template:
        return f"{path} is not known{hint}"
    where = f"{path} is neither in {template}/{WORDS} nor in the {WORDS} of all"
    return f"{where}{hint}" if hint.endswith("?") else f"{where}; add it to one"


def _check_needed(
    channel: str, compiled: list[Compiled], link: str, what: str, *, always: bool = False
) -> Iterator[Finding]:
    """What is about one link needs it in the body of each language."""
    main = "txt" if channel == "sms" or not any(source.file.endswith(".html") for source in compiled) else "html"
    bodies = [source for source in compiled if source.file.startswith("body.") and source.file.endswith(main)]
    if always or any(link in source.variables for source in compiled):
        for source in bodies:
            if link not in source.variables:
                yield Finding(source.file, 1, f"has no {what}; write {{{{ {link} }}}}, as the others do")


def _hint(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, sorted(known), 1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"


# --- each language, rendered for somebody we know well and somebody we hardly know


def _check_contents(template: Template, known: set[Finding]) -> Iterator[Finding]:
    """Yield what only rendering shows; `known` is what reading has shown.

    Of a file that several languages share, it is said which of them a finding is about, unless it is about all.
    """
    places = {(each.file, each.line) for each in known if each.level == "error"}
    found = {locale: set(_check_language(template, locale, places)) for locale in template.locales}
    files = {locale: template.variant(locale).files for locale in found}
    for finding in set().union(*found.values()):
        sharing = [locale for locale in found if finding.file in files[locale]]
        about = [locale for locale in sharing if finding in found[locale]]
        message = finding.message if about == sharing else f"in {', '.join(about)}: {finding.message}"
        yield replace(finding, message=message)


def _check_language(template: Template, locale: str, places: Container[tuple[str, int]]) -> Iterator[Finding]:
    """What rendering shows of one language; `places` are those where it is known already that they cannot be."""
    variant = template.variant(locale)
    sizes = [0]
    for values in sample_contexts(locale=locale, marketing=template.meta.class_ == "marketing"):
        try:
            content = template.compose(values, locale)
        except RenderFailed as error:
            failure = _failure(template, error)
            if (failure.file, failure.line) not in places:
                yield failure
            yield from _check_unrendered(template, variant)
            continue
        yield from _check_content(template, variant, content, values)
        sizes.append(len((content.html or "").encode()))
    if variant.html:
        yield from _check_size(variant.html.file, max(sizes))


def _check_unrendered(template: Template, variant: Variant) -> Iterator[Finding]:
    """What can be said of a body that does not render: whether it names what it must, and how long it is."""
    for body in filter(None, (variant.html, variant.text)):
        if template.meta.class_ == "marketing":
            if "unsubscribe_url" not in body.variables:
                yield _no_way_out(body.file)
            if template.channel == "email" and all(path != "shop.postal_address" for _, path in body.paths):
                yield _no_postal_address(body.file)
        if body is variant.html and len(body.source.encode()) > CLIPPED_BYTES:
            yield from _check_size(body.file, len(body.source.encode()))


def _failure(template: Template, error: RenderFailed) -> Finding:
    reason = error.reason
    if reason.startswith("contact.attributes."):
        reason += ' for every contact; write |default("...")'
    # what the shop will send along is not known here: a stand-in may fail where the real thing would not
    guessed = not template.variables.isdisjoint(("data", "event")) and "is not known" not in reason
    return Finding(error.file or META, error.line or 1, reason, "warning" if guessed else "error")


def _check_content(
    template: Template, variant: Variant, content: Content, values: Mapping[str, Any]
) -> Iterator[Finding]:
    if template.channel == "sms":
        yield from _check_sms(template, variant, content)
        return
    if variant.subject and not content.subject:
        yield Finding(variant.subject.file, 1, "renders to nothing; a mail needs a subject")
    elif variant.subject and len(content.subject) > LONG_SUBJECT:
        message = f"has {len(content.subject)} characters; mail programs show less than {LONG_SUBJECT}"
        yield Finding(variant.subject.file, 1, message, "warning")
    marketing = template.meta.class_ == "marketing"
    if variant.html and content.html is not None and marketing:
        yield from _check_way_out_of_html(variant.html.file, content.html, values["shop"]["postal_address"])
    text = variant.text or variant.html
    if marketing and text:
        if UNSUBSCRIBE_URL not in content.text:
            yield _no_way_out(text.file)
        if values["shop"]["postal_address"] not in " ".join(content.text.split()):
            yield _no_postal_address(text.file)


def _check_size(file: str, size: int) -> Iterator[Finding]:
    if size > CLIPPED_BYTES:
        yield Finding(file, 1, f"renders to {size:,} bytes; Gmail cuts mails off at {CLIPPED_BYTES:,}")
    elif size > CLIPPED_BYTES * _ROOM_LEFT:
        yield Finding(file, 1, f"renders to {size:,} bytes, close to the {CLIPPED_BYTES:,} Gmail shows", "warning")


def _check_way_out_of_html(file: str, html: str, postal_address: str) -> Iterator[Finding]:
    """The link must be one that a reader can see and press."""
    tree = parse_html(html)
    links = [] if tree is None else [link for link in tree.iter("a") if link.get("href") == UNSUBSCRIBE_URL]
    if not any(_can_be_seen(link) for link in links):
        yield _no_way_out(file)
    if tree is None or postal_address not in " ".join(tree.text_content().split()):
        yield _no_postal_address(file)


def _can_be_seen(link: Any) -> bool:
    label = link.text_content().strip() or any(image.get("alt") for image in link.iter("img"))
    around = [link, *link.iterancestors()]
    styles = ["".join((element.get("style") or "").lower().split()) for element in around]
    hidden = any("display:none" in style or "visibility:hidden" in style for style in styles)
    return bool(label) and not hidden and not any(element.get("hidden") is not None for element in around)


def _no_way_out(file: str) -> Finding:
    message = 'has no unsubscribe link that can be seen; write <a href="{{ unsubscribe_url }}">Unsubscribe</a>'
    return Finding(file, 1, message if file.endswith(".html") else "has no way out; write {{ unsubscribe_url }}")


def _no_postal_address(file: str) -> Finding:
    return Finding(file, 1, "has no postal address; write {{ shop.postal_address }}")


def _check_sms(template: Template, variant: Variant, content: Content) -> Iterator[Finding]:
    file = variant.text.file if variant.text else "body.txt"
    if not content.text:
        yield Finding(file, 1, "renders to nothing")
    if template.meta.class_ == "marketing" and UNSUBSCRIBE_URL not in content.text:
        yield _no_way_out(file)
    encoding, parts = sms_segments(content.text)
    if parts > MOST_SMS_PARTS:
        message = f"is sent in {parts} parts ({encoding}), each of them paid; at most {MOST_SMS_PARTS} are allowed"
        yield Finding(file, 1, message)
