"""A workspace: the folder where a shop writes down its segments, campaigns, templates and rules.

It is read whole or not at all: every finding of every file is named, one line each, with file, line, field and reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dispatcher.clicks.check import check_links, personal_in_links
from dispatcher.contact_windows.changes import objections_to
from dispatcher.content import meta_of, read_template_folder
from dispatcher.content.check import check_template
from dispatcher.content.folder import SHARED
from dispatcher.definitions import DEFAULT_CONFIRMATION, NAME, Campaign, Shop, TemplateMeta, Trigger
from dispatcher.destinations import allowed_hosts
from dispatcher.errors import InvalidDefinition, NotFound
from dispatcher.references import Known, did_you_mean, missing, objections
from dispatcher.settings import WORKSPACE_FILE, Settings
from dispatcher.tables import CHANNELS
from dispatcher.toml_lines import load_toml
from segments.definition import Segment, parse_segment
from segments.errors import InvalidDocument
from segments.yaml_lines import Document, findings, load_document

FOLDERS = ("segments", "campaigns", "triggers", "templates")

#: A campaign or a trigger: both are read alike.
Named = TypeVar("Named", Campaign, Trigger)

#: By channel and name: the files of each template.
Templates = dict[tuple[str, str], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Workspace:
    shop: Shop
    segments: dict[str, Segment]
    campaigns: dict[str, Campaign]
    triggers: dict[str, Trigger]
    templates: Templates
    ignored: tuple[str, ...]  # what lies in the folder and is not ours
    warnings: tuple[str, ...]  # what may stay, and should be looked at


@dataclass(slots=True)
class _Reading:
    """What has been read so far, and everything that is wrong with it."""

    folder: Path
    findings: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)  # segments/NAME, campaigns/NAME, templates/CHANNEL/NAME, right or wrong
    documents: dict[str, Document] = field(default_factory=dict)  # by campaigns/NAME, triggers/NAME: for their lines
    toml: Document | None = None  # for the lines of dispatcher.toml
    metas: dict[tuple[str, str], TemplateMeta] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def note(self, file: str, line: int, name: str, reason: str) -> None:
        self.findings.append(f"{file}:{line}: {name}: {reason}" if name else f"{file}:{line}: {reason}")


def read_workspace(folder: Path) -> Workspace:
    """Return the workspace in `folder`; InvalidDefinition carries every finding."""
    reading = _begin(folder)
    shop = _read_shop(reading)
    segments = _read_segments(reading)
    campaigns = _read_definitions(reading, "campaigns", Campaign)
    triggers = _read_definitions(reading, "triggers", Trigger)
    templates = _read_templates(reading, shop)
    ignored = _unknown_entries(reading)
    _check_references(reading, shop, campaigns)
    _check_confirmations(reading, shop)
    _check_triggers(reading, triggers)
    _check_links(reading, shop, templates, [*campaigns.values(), *triggers.values()])
    if reading.findings or shop is None:
        raise InvalidDefinition(sorted(dict.fromkeys(reading.findings), key=_by_place))
    return Workspace(shop, segments, campaigns, triggers, templates, ignored, tuple(dict.fromkeys(reading.warnings)))


def check_templates(folder: Path, name: str | None = None) -> tuple[list[str], list[str]]:
    """Return errors and warnings of the workspace's templates, or of those called `name`."""
    reading, beside = _begin(folder), _begin(folder)  # what is wrong beside the templates is for apply to say
    shop = _read_shop(reading)
    campaigns = _read_definitions(beside, "campaigns", Campaign)
    senders: list[Campaign | Trigger] = [*campaigns.values(), *_read_definitions(beside, "triggers", Trigger).values()]
    _check_links(reading, shop, _read_templates(reading, shop), senders)
    names = sorted({path.rpartition("/")[2] for path in reading.seen})
    if name is not None and name not in names:
        raise NotFound(
            f"there is no template {name}{did_you_mean(name, names)}; there are {', '.join(names) or 'none'}"
        )
    place = f"/{name}/" if name else ""
    of_all = (f"{WORKSPACE_FILE}:", *(f"templates/email/{file}:" for file in SHARED))
    errors, warnings = (
        sorted((line for line in dict.fromkeys(found) if place in line or line.startswith(of_all)), key=_by_place)
        for found in (reading.findings, reading.warnings)
    )
    return errors, warnings


def _begin(folder: Path) -> _Reading:
    if not (folder / WORKSPACE_FILE).is_file():
        raise NotFound(f"{folder} is not a workspace: it has no {WORKSPACE_FILE}; dispatcher init makes one")
    return _Reading(folder)


def _by_place(finding: str) -> tuple[str, int]:
    file, line, *_ = (*finding.split(":", 2), "")
    return file, int(line) if line.isdigit() else 0


# --- dispatcher.toml


def _read_shop(reading: _Reading) -> Shop | None:
    """Return the shop's tables; the settings beside them are checked, unknown keys are named."""
    try:
        document = load_toml((reading.folder / WORKSPACE_FILE).read_bytes(), WORKSPACE_FILE)
    except InvalidDocument as error:
        reading.findings += error.findings
        return None
    reading.toml = document
    tables = {key: value for key, value in document.data.items() if key in Shop.model_fields}
    settings = {
        key: value for key, value in document.data.items() if key in Settings.model_fields and key not in tables
    }
    for key in document.data.keys() - tables.keys() - settings.keys():
        kind = "table" if isinstance(document.data[key], dict | list) else "setting"
        known = [*Shop.model_fields, *Settings.model_fields]
        reading.note(
            WORKSPACE_FILE, document.line_of((key,)), key, f"there is no such {kind}{did_you_mean(key, known)}"
        )
    _check_settings(reading, document, settings)
    try:
        shop = Shop.model_validate(tables)
    except ValidationError as error:
        reading.findings += findings(error, document, WORKSPACE_FILE)
        return None
    for name, change in shop.contact_windows.items():
        for field_name, reason in objections_to(name, change):
            path = ("contact_windows", name, *((field_name,) if field_name else ()))
            reading.note(WORKSPACE_FILE, document.line_of(path), ".".join(path), reason)
    return shop


def _check_settings(reading: _Reading, document: Document, settings: dict[str, Any]) -> None:
    try:
        Settings(**settings)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if (key := str(detail["loc"][0])) in settings:
                reason = detail["msg"].removeprefix("Value error, ")
                reading.note(WORKSPACE_FILE, document.line_of((key,)), key, reason)


# --- segments/*.yaml, campaigns/*.yaml, triggers/*.yaml


def _read_segments(reading: _Reading) -> dict[str, Segment]:
    found = {}
    for name, file, content in _yaml_files(reading, "segments"):
        try:
            segment = parse_segment(content, file)
        except InvalidDocument as error:
            reading.findings += error.findings
            continue
        if segment.name != name:
            reading.note(file, _line_of_name(content, file), "name", _wrong_name(segment.name, name))
        found[name] = segment
    return found


def _read_definitions(reading: _Reading, kind: str, model: type[Named]) -> dict[str, Named]:
    found = {}
    for name, file, content in _yaml_files(reading, kind):
        try:
            document = load_document(content, file)
            definition = model.model_validate(document.data)
        except InvalidDocument as error:
            reading.findings += error.findings
            continue
        except ValidationError as error:
            reading.findings += findings(error, document, file)
            continue
        if definition.name != name:
            reading.note(file, document.line_of(("name",)), "name", _wrong_name(definition.name, name))
        found[name] = definition
        reading.documents[f"{kind}/{name}"] = document
    return found


def _yaml_files(reading: _Reading, kind: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield name, shown path and content of each definition in a folder; whatever else lies there is a finding."""
    folder = reading.folder / kind
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        file = f"{kind}/{path.name}"
        if path.name.startswith("."):
            continue
        if not path.is_file() or path.suffix != ".yaml":
            reading.note(
                file, 1, "", f"only .yaml files belong into {kind}/; rename it to {path.stem}.yaml or move it out"
            )
            continue
        reading.seen.add(f"{kind}/{path.stem}")
        yield path.stem, file, path.read_bytes()


def _wrong_name(name: str, stem: str) -> str:
    return f"is {name}, but the file is called {stem}.yaml; both must be the same"


def _line_of_name(content: bytes, file: str) -> int:
    return load_document(content, file).line_of(("name",))


# --- templates/<channel>/<name>/


def _read_templates(reading: _Reading, shop: Shop | None) -> Templates:
    found: Templates = {}
    root = reading.folder / "templates"
    if not root.is_dir():
        return found
    for path in _entries(root):
        if path.name not in CHANNELS or not path.is_dir():
            reason = f"templates/ holds the folders email and sms{did_you_mean(path.name, CHANNELS)}"
            reading.note(f"templates/{path.name}", 1, "", reason)
            continue
        for folder in _entries(path):
            if path.name == "email" and folder.name in SHARED and folder.is_file():
                continue  # read with each template that uses it
            _read_template(reading, shop, path.name, folder, found)
    return found


def _read_template(reading: _Reading, shop: Shop | None, channel: str, folder: Path, found: Templates) -> None:
    shown = f"templates/{channel}/{folder.name}"
    if not folder.is_dir():
        reading.note(shown, 1, "", f"not a folder; a template is templates/{channel}/NAME/ with its files in it")
        return
    if not re.fullmatch(NAME, folder.name):
        reading.note(shown, 1, "", "a template's name has only lower-case letters, digits, - and _")
        return
    reading.seen.add(shown)
    try:
        files = read_template_folder(folder)
    except InvalidDefinition as error:
        reading.findings += [_located(finding.removeprefix(f"{reading.folder}/")) for finding in error.findings]
        return
    found[channel, folder.name] = files
    try:
        reading.metas[channel, folder.name] = meta_of(files)
    except InvalidDefinition as error:
        reading.findings += [_located(f"{shown}/{finding}") for finding in error.findings]
    if shop is not None:  # its own findings say why there are no topics to compare with
        for each in check_template(channel, folder.name, files, shop.topics):
            (reading.findings if each.level == "error" else reading.warnings).append(str(each))


def _located(finding: str) -> str:
    """Return the finding with a line; what is wrong with a whole file is said of its first."""
    return finding if re.match(r"[^:]+:\d+: ", finding) else finding.replace(": ", ":1: ", 1)


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


# --- what one file says about another


def _check_references(reading: _Reading, shop: Shop | None, campaigns: dict[str, Campaign]) -> None:
    seen = [path.split("/") for path in reading.seen]
    known = Known(
        segments={rest[0] for kind, *rest in seen if kind == "segments"},
        templates={
            (rest[0], rest[1]): reading.metas.get((rest[0], rest[1])) for kind, *rest in seen if kind == "templates"
        },
        shop=shop,
    )
    for stem, campaign in campaigns.items():
        line_of = reading.documents[f"campaigns/{stem}"].line_of
        for name, reason in objections(campaign, known):
            reading.note(f"campaigns/{stem}.yaml", line_of((name,)), name, reason)


def _check_confirmations(reading: _Reading, shop: Shop | None) -> None:
    """A topic with double opt-in needs something to ask with; one from elsewhere may do without."""
    for name, topic in (shop.topics if shop else {}).items():
        if not topic.double_opt_in and topic.confirmation is None:
            continue
        template = topic.confirmation or DEFAULT_CONFIRMATION
        key = "confirmation" if topic.confirmation else "double_opt_in"
        line = reading.toml.line_of(("topics", name, key)) if reading.toml else 1
        for channel in topic.channels:
            meta = reading.metas.get((channel, template))
            if meta is not None and meta.class_ != "transactional":
                reason = f"{template} is {meta.class_}; an opt-in confirmation is transactional"
                reading.note(WORKSPACE_FILE, line, key, reason)
            elif topic.confirmation is not None:
                _check_exists(reading, WORKSPACE_FILE, line, key, f"templates/{channel}", template)
            elif f"templates/{channel}/{template}" not in reading.seen:
                missing = f"there is no templates/{channel}/{template} to ask for a confirmation with"
                reading.warnings.append(f"{WORKSPACE_FILE}:{line}: warning: {key}: {missing}")


def _check_triggers(reading: _Reading, triggers: dict[str, Trigger]) -> None:
    for stem, trigger in triggers.items():
        file, line = f"triggers/{stem}.yaml", reading.documents[f"triggers/{stem}"].line_of(("template",))
        _check_exists(reading, file, line, "template", f"templates/{trigger.channel}", trigger.template)
        if f"campaigns/{stem}" in reading.seen:
            reading.note(file, 1, "name", f"there is a campaign {stem}, too; explain needs them told apart")


def _check_links(
    reading: _Reading, shop: Shop | None, templates: Templates, senders: Iterable[Campaign | Trigger]
) -> None:
    """Hold links to the list of hosts: where the shop wrote one, and where somebody counts clicks."""
    for (channel, name), files in sorted(templates.items()):
        reading.warnings += map(str, personal_in_links(f"templates/{channel}/{name}", files))
    if shop is None:
        return
    counted: dict[tuple[str, str], str] = {
        (each.channel, each.template): each.name for each in senders if each.track_clicks
    }
    for (channel, name), files in sorted(templates.items()):
        by = counted.get((channel, name))
        if by is None and shop.links.allowed_hosts is None:
            continue
        because = f"{by} counts clicks" if by else f"{WORKSPACE_FILE} says where links may lead"
        for each in check_links(f"templates/{channel}/{name}", files, allowed_hosts(shop), because):
            (reading.findings if each.level == "error" else reading.warnings).append(str(each))


def _check_exists(reading: _Reading, file: str, line: int, name: str, folder: str, wanted: str) -> None:
    """Note it if there is no file for `wanted`; one that is there and wrong has its own findings."""
    if f"{folder}/{wanted}" not in reading.seen:
        known = [path.rpartition("/")[2] for path in reading.seen if path.rpartition("/")[0] == folder]
        reading.note(file, line, name, missing(folder, wanted, known))


def _unknown_entries(reading: _Reading) -> tuple[str, ...]:
    """Return what lies beside our files; a finding if its name looks like a slip for one of ours."""
    unknown = []
    for path in _entries(reading.folder):
        if path.name in (WORKSPACE_FILE, *FOLDERS):
            continue
        if hint := did_you_mean(path.name, [WORKSPACE_FILE, *FOLDERS]):
            reading.note(path.name, 1, "", f"not part of a workspace{hint}")
        unknown.append(path.name)
    return tuple(unknown)
