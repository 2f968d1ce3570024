"""The documents cannot fall behind: what the code has is in them, and what they show is right."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from dispatcher.api_keys import SCOPES
from dispatcher.cli import app
from dispatcher.definitions import Campaign, Retention, Shop, TemplateMeta, Trigger
from dispatcher.gates import GATES, Reason
from dispatcher.imports.mapping import Mapping
from dispatcher.lifecycle import MOVES, Status
from dispatcher.rights.data_map import DATA_MAP
from dispatcher.settings import Settings
from dispatcher.triggers.arrivals import Outcome
from segments.definition import parse_segment
from segments.yaml_lines import load_document

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "segments").glob("*.md"), *ROOT.glob("examples/**/*.md")]
)
MOST_LINES = 250

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")


def text_of(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def everything() -> str:
    """Return all pages that say how to use it; the list of changes does not."""
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "CHANGELOG.md")


def without_code(text: str) -> str:
    return _CODE.sub("", _FENCE.sub("", text))


def headings(text: str) -> list[str]:
    return _HEADING.findall(_FENCE.sub("", text))


def slug(heading: str) -> str:
    """Return the anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in headings(page.read_text(encoding="utf-8"))}


def fenced(page: str, language: str) -> list[str]:
    return [body for _, kind, body in _FENCE.findall(text_of("docs", page)) if kind == language]


def section(page: str, heading: str) -> str:
    """Return what stands under a heading, up to the next one of its level."""
    level = heading.split()[0]
    return text_of("docs", page).partition(f"{heading}\n")[2].partition(f"\n{level} ")[0]


def commands() -> Iterator[str]:
    """Yield every command of the command line, like `campaign start`."""
    waiting: list[tuple[list[str], object]] = [([], typer.main.get_command(app))]
    while waiting:
        names, command = waiting.pop()
        inner = getattr(command, "commands", None)
        if inner is None:
            yield " ".join(names)
        else:
            waiting += [([*names, name], one) for name, one in inner.items()]


def test_every_scope_of_a_key_is_named() -> None:
    assert [scope for scope in SCOPES if f"`{scope}`" not in text_of("docs", "operating.md")] == []


def test_every_setting_has_its_heading() -> None:
    documented = {name.strip("`") for name in headings(text_of("docs", "settings.md")) if name.startswith("`")}

    assert documented == {f"DISPATCHER_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_explained(reason: Reason) -> None:
    assert f"\n| `{reason}` |" in text_of("docs", "message-lifecycle.md")


def test_reasons_stand_in_the_order_of_the_gates() -> None:
    listed = re.findall(r"^\| `([A-Z_]+)` \|", text_of("docs", "message-lifecycle.md"), re.MULTILINE)

    assert [reason for reason in listed if reason in GATES] == [reason.value for reason in GATES]


def test_every_status_is_explained_and_every_move_is_drawn() -> None:
    page = text_of("docs", "message-lifecycle.md")
    drawn = set(re.findall(r"^ +(\w+) --> (\w+):", page, re.MULTILINE))

    assert all(f"\n| `{status}` |" in page for status in Status)
    assert drawn == {(old.value, new.value) for old, moves in MOVES.items() for new in moves}


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_is_shown_somewhere(command: str) -> None:
    group, _, name = command.rpartition(" ")
    several = rf"\b{group} (?:[\w-]+\|)*{name}\b" if group else rf"(?:dispatcher |`|\||, `){name}\b"

    assert re.search(several, everything()), f"no page shows dispatcher {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


def test_the_files_that_the_readme_names_exist() -> None:
    readme = text_of("README.md")
    rules = re.findall(r"^\| .+\? \| (.+) \|$", readme, re.MULTILINE)
    rooms = re.findall(r"^([\w.]+/?) {3,}the ", readme, re.MULTILINE)

    assert len(rules) > 10
    assert len(rooms) == 5
    assert [row for row in rules if not _LINK.findall(row)] == []
    assert [room for room in rooms if not (ROOT / room).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_short(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_every_decision_is_listed_and_says_what_was_rejected() -> None:
    pages = [page for page in (DOCS / "decisions").glob("*.md") if page.name != "README.md"]
    listed = _LINK.findall(text_of("docs", "decisions", "README.md"))

    assert sorted(listed) == sorted(page.name for page in pages)
    for page in pages:
        wanted = ["Context", "Decision", "Consequences", "Rejected"]
        assert headings(page.read_text(encoding="utf-8"))[1:] == wanted, page.name


@pytest.mark.parametrize("example", fenced("segments.md", "yaml"))
def test_the_segments_that_are_shown_are_right(example: str) -> None:
    assert parse_segment(example, "docs/segments.md").name


def test_the_data_map_is_the_one_the_engine_goes_by() -> None:
    page = text_of("docs", "privacy.md")
    for name, held in DATA_MAP.items():
        if held.not_exported == "it names no person":
            assert f"`{name}`" in page.partition("Nobody's: ")[2].partition("\n")[0]
            continue
        shown = ", ".join(f"`{section}`" for section in held.exported_as) or f"not: {held.not_exported}"
        assert f"| `{name}` | {held.about} | {shown} | {held.erased} | {held.kept} |" in page
    for name in (name for held in DATA_MAP.values() for name in held.exported_as):
        assert f"`{name}`" in page.partition("| section | holds |")[2].partition("## ")[0], name


def test_every_term_of_retention_is_explained_with_its_default() -> None:
    page = text_of("docs", "privacy.md")
    for name, term in Retention().model_dump(mode="json").items():
        assert f"| `{name}` | {term} |" in page
        assert f'{name} = "{term}"' in page


def test_the_shop_that_is_shown_is_right() -> None:
    [example] = fenced("settings.md", "toml")
    tables = tomllib.loads(example)
    settings = {key: tables.pop(key) for key in list(tables) if key in Settings.model_fields}
    shop = Shop.model_validate(tables)

    assert settings
    assert set(tables) == set(Shop.model_fields)
    assert {field for cap in shop.caps for field in cap.model_fields_set} == set(type(shop.caps[0]).model_fields)


@pytest.mark.parametrize(
    ("page", "heading", "kind"),
    [
        ("settings.md", "## campaigns/NAME.yaml", Campaign),
        ("templates.md", "## templates/CHANNEL/NAME/meta.yaml", TemplateMeta),
        ("importing.md", "## Map files, for `import events --map`", Mapping),
    ],
)
def test_the_files_that_are_shown_are_right(
    page: str, heading: str, kind: type[Campaign] | type[TemplateMeta] | type[Mapping]
) -> None:
    [example] = [body for _, language, body in _FENCE.findall(section(page, heading)) if language == "yaml"]

    assert kind.model_validate(load_document(example, f"docs/{page}").data)


def test_every_key_of_a_campaign_and_its_schedule_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", section("settings.md", "## campaigns/NAME.yaml")))

    assert explained >= set(Campaign.model_fields)
    assert explained >= {"cron", "at", "zone", "local", "late", "max_lateness"}


def test_every_key_of_a_trigger_and_every_outcome_of_an_event_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", section("triggers.md", "## triggers/NAME.yaml")))

    assert explained >= set(Trigger.model_fields)
    assert all(f"\n| `{outcome}` |" in text_of("docs", "triggers.md") for outcome in Outcome)


@pytest.mark.parametrize("example", fenced("triggers.md", "yaml"))
def test_the_triggers_that_are_shown_are_right(example: str) -> None:
    assert Trigger.model_validate(load_document(example, "docs/triggers.md").data).unless


def test_every_event_of_the_log_that_is_worth_an_alert_is_written_somewhere() -> None:
    code = "".join(
        path.read_text(encoding="utf-8") for name in ("dispatcher", "workers") for path in (ROOT / name).rglob("*.py")
    )
    named = re.findall(r"`(\w+\.\w+)`", section("operating.md", "## Logs"))

    assert len(named) > 10
    assert [event for event in named if f'"{event}"' not in code] == []
