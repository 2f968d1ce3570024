"""A workspace is read whole or refused whole, with every finding named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_workspace import FILES, write_workspace

from dispatcher.errors import InvalidDefinition, NotFound
from dispatcher.workspace import check_templates, read_workspace


def edited(file: str, old: str, new: str) -> dict[str, str | None]:
    assert old in FILES[file]
    return {file: FILES[file].replace(old, new)}


def test_a_good_workspace_is_read_whole(tmp_path: Path) -> None:
    workspace = read_workspace(write_workspace(tmp_path, {"README.md": "ours", ".gitignore": "x"}))

    assert workspace.shop.shop.name == "Small Shop"
    assert sorted(workspace.segments) == ["everybody", "fans"]
    assert sorted(workspace.campaigns) == ["christmas", "hello"]
    assert sorted(workspace.templates) == [("email", "christmas"), ("email", "order")]
    assert workspace.ignored == ("README.md",)


def test_settings_may_stand_beside_the_shop(tmp_path: Path) -> None:
    workspace = read_workspace(
        write_workspace(tmp_path, {"dispatcher.toml": "port = 8080\n" + FILES["dispatcher.toml"]})
    )

    assert workspace.shop.shop.zone == "Europe/London"


def test_a_folder_without_dispatcher_toml_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="dispatcher init"):
        read_workspace(tmp_path)


SHOP, FANS, CHRISTMAS, HELLO = (
    "dispatcher.toml",
    "segments/fans.yaml",
    "campaigns/christmas.yaml",
    "campaigns/hello.yaml",
)

#: In a good file: what is replaced by what, and the finding that this must give (after the file's name).
SLIPS = [
    (SHOP, "zone = ", "zoen = ", "5: shop.zoen: is not known here"),
    (SHOP, "Europe/London", "Europe/Londn", "5: shop.zone: 'Europe/Londn' is not a time zone"),
    (SHOP, "20:00-09:00", "20-9", "9: quiet_hours.sms: '20-9' is not a time of silence"),
    (SHOP, "max = 1", "max = 0", "13: caps[0].max: "),
    (
        SHOP,
        "[quiet_hours]",
        '[contact_windows.US-KY]\nwindows = {daily = "09:00-21:00"}\n[quiet_hours]',
        "9: contact_windows.US-KY.windows: lets through what US-KY does not (KRS 367.46955(16)); make it narrow",
    ),
    (
        SHOP,
        "[quiet_hours]",
        "[contact_windows.US]\noff = true\n[quiet_hours]",
        "9: contact_windows.US.off: lets through",
    ),
    (
        SHOP,
        "[quiet_hours]",
        '[contact_windows.US-PA]\nholidays = "open"\n[quiet_hours]',
        "9: contact_windows.US-PA.holidays: lets through",
    ),
    (
        SHOP,
        "[quiet_hours]",
        '[contact_windows.US-KI]\nwindows = {daily = "11:00-12:00"}\n[quiet_hours]',
        "8: contact_windows.US-KI: there is no contact window US-KI; did you mean US-",
    ),
    (
        SHOP,
        "[quiet_hours]",
        '[contact_windows.GB]\nwindows = {dialy = "11:00-12:00"}\n[quiet_hours]',
        "9: contact_windows.GB.windows: 'dialy' is no day; write daily, mon-fri, sat",
    ),
    (
        SHOP,
        "[quiet_hours]",
        '[contact_windows.PL]\ncountry = "PL"\nwindows = {daily = "9-17"}\n[quiet_hours]',
        "10: contact_windows.PL.windows: '9-17' are no hours; write them like 09:00-20:00, or closed",
    ),
    (
        SHOP,
        "[quiet_hours]",
        '[contact_windows.GB]\nwindows = {daily = "11:00-12:00"}\nloosened = {by = "J. Doe", because = "nothing is"}\n'
        "[quiet_hours]",
        "10: contact_windows.GB.loosened: nothing here loosens GB; leave it out",
    ),
    (SHOP, 'window = "24h"', "", "11: caps[0]: a cap needs max with"),
    (SHOP, "[quiet_hours]", "[quiet_hour]", "8: quiet_hour: there is no such table; did you mean quiet_hours?"),
    (SHOP, "[shop]", "prot = 1\n[shop]", "1: prot: there is no such setting; did you mean port?"),
    (SHOP, "[shop]", 'port = "x"\n[shop]', "1: port: "),
    (SHOP, "[shop]", "[shop", "1: not TOML"),
    (SHOP, "max = 1", "max = 1\nmax = 2", "14: not TOML"),
    (FANS, "interest", "intrest", "4: match.where.intrest: is not known here"),
    (FANS, "name: fans", "name: fan", "1: name: is fan, but the file is called fans.yaml"),
    (CHRISTMAS, "channel: email", "channel: fax", "2: channel: must be 'email' or 'sms'"),
    (CHRISTMAS, "0 10 * * mon", "0 10 1 * mon", "6: schedule: cron"),
    (CHRISTMAS, "12h", "12 parsecs", "7: expires_after: '12 parsecs' is not a duration"),
    (CHRISTMAS, "segment: fans", "segment: fanz", "4: segment: there is no segments/fanz; did you mean fans?"),
    (
        CHRISTMAS,
        "topic: offers",
        "topic: ofers",
        "3: topic: dispatcher.toml has no [topics.ofers]; did you mean offers?",
    ),
    (
        CHRISTMAS,
        "template: chr",
        "template: ch",
        "5: template: there is no templates/email/chistmas; did you mean christ",
    ),
    (CHRISTMAS, "template: christmas", "template: order", "5: template: order is transactional; only marketing"),
    (CHRISTMAS, "email\ntopic: offers", "sms\ntopic: letters", "3: topic: letters is not a topic for sms; add sms to"),
    (HELLO, "name: hello", "name: christmas", "1: name: is christmas, but the file is called hello.yaml"),
    (HELLO, "name: hello", "name: hello\nname: hello", "2: name: is there twice"),
]

META = "templates/email/christmas/meta.yaml"

#: A file of another content, and the finding it must give.
FILES_AMISS = [
    (SHOP, "", "dispatcher.toml:1: shop: is missing"),
    (FANS, "", "segments/fans.yaml:1: the file is empty"),
    (FANS, "name: fans\nmatch: [\n", "segments/fans.yaml:3: not YAML"),
    ("segments/old.yml", "x", "segments/old.yml:1: only .yaml files belong into segments/; rename it to old.yaml"),
    (META, "class: marketing\n", f"{META}:1: a marketing template needs a topic"),
    (
        META,
        "class: marketing\ntopic: nothing\n",
        f"{META}:2: there is no topic nothing; dispatcher.toml has letters, offers",
    ),
    (META, None, f"{META}:1: is missing"),
    ("templates/email/christmas/a.png", "x", "templates/email/christmas/a.png:1: has no place in a template"),
    (
        "templates/emails/x/meta.yaml",
        "x",
        "templates/emails:1: templates/ holds the folders email and sms; did you mean",
    ),
    ("templates/email/A B/meta.yaml", "x", "templates/email/A B:1: a template's name has only lower-case letters"),
    ("triggers/cart.yaml", "name: cart\n", "triggers/cart.yaml:1: key: is missing"),
    (
        "triggers/cart.yaml",
        "name: cart\non: checkout.started\nkey: cart\nchannel: email\ntemplate: christmas\n",
        "triggers/cart.yaml:3: key: is the same for every event",
    ),
    (
        "triggers/cart.yaml",
        "name: cart\non: checkout.started\nkey: '{{ contact.id }}'\nchannel: email\ntemplate: christmas\n",
        "triggers/cart.yaml:3: key: contact is not known here",
    ),
    (
        "triggers/cart.yaml",
        "name: cart\non: checkout.started\nkey: '{{ event.id }}'\nchannel: sms\ntemplate: christmas\n",
        "triggers/cart.yaml:5: template: there is no templates/sms/christmas",
    ),
    (
        "triggers/cart.yaml",
        "name: cart\non: a\nkey: '{{ event.id }}'\nunless: [{event: b, since: birth}]\nchannel: email\n"
        "template: christmas\n",
        "triggers/cart.yaml:4: unless[0].since: ",
    ),
    ("segment/x.yaml", "name: x\n", "segment:1: not part of a workspace; did you mean segments?"),
]


@pytest.mark.parametrize(("file", "old", "new", "finding"), SLIPS, ids=[f"{file}:{what}" for file, *_, what in SLIPS])
def test_a_slip_is_named_by_file_line_and_field(tmp_path: Path, file: str, old: str, new: str, finding: str) -> None:
    assert_found(write_workspace(tmp_path, edited(file, old, new)), f"{file}:{finding}")


@pytest.mark.parametrize(("file", "content", "finding"), FILES_AMISS, ids=[what for *_, what in FILES_AMISS])
def test_a_file_amiss_is_named(tmp_path: Path, file: str, content: str | None, finding: str) -> None:
    assert_found(write_workspace(tmp_path, {file: content}), finding)


def assert_found(folder: Path, finding: str) -> None:
    """The finding is there, and every finding is one line that begins with file and line."""
    with pytest.raises(InvalidDefinition) as caught:
        read_workspace(folder)

    found = caught.value.findings
    assert any(line.startswith(finding) for line in found), found
    assert all(re.fullmatch(r"[^:\n]+:\d+: [^\n]+", line) for line in found), found


def test_one_mistake_is_one_finding(tmp_path: Path) -> None:
    broken = edited("segments/fans.yaml", "interest", "intrest")

    with pytest.raises(InvalidDefinition) as caught:
        read_workspace(write_workspace(tmp_path, broken))

    assert len(caught.value.findings) == 1


def test_all_mistakes_are_named_at_once_in_the_order_of_files_and_lines(tmp_path: Path) -> None:
    changes = {
        **edited("campaigns/christmas.yaml", "channel: email", "channel: fax"),
        **edited("campaigns/hello.yaml", "segment: everybody", "segment: nobody"),
        **edited("dispatcher.toml", "max = 1", "max = 0"),
    }

    with pytest.raises(InvalidDefinition) as caught:
        read_workspace(write_workspace(tmp_path, changes))

    assert [finding.split(" ")[0] for finding in caught.value.findings] == [
        "campaigns/christmas.yaml:2:",
        "campaigns/hello.yaml:3:",
        "dispatcher.toml:13:",
    ]


def _letters(*lines: str) -> str:
    return FILES[SHOP].replace('channels = ["email"]\n', "\n".join(('channels = ["email"]', *lines, "")))


def test_a_double_opt_in_without_anything_to_ask_with_is_a_warning(tmp_path: Path) -> None:
    workspace = read_workspace(write_workspace(tmp_path, {SHOP: _letters("double_opt_in = true")}))

    [warning] = workspace.warnings
    assert re.fullmatch(
        r"dispatcher.toml:\d+: warning: double_opt_in: there is no templates/email/opt-in-confirmation to ask .*",
        warning,
    )


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ('confirmation = "nothing"', "confirmation: there is no templates/email/nothing"),
        ('confirmation = "christmas"', "confirmation: christmas is marketing; an opt-in confirmation is transactional"),
        ('double_opt_in = true\nbases = ["soft_opt_in"]', "a topic with double_opt_in accepts a confirmed opt-in only"),
        ('bases = ["consent"]', "topics.letters.bases"),
    ],
)
def test_a_topic_that_cannot_be_confirmed_is_found(tmp_path: Path, line: str, finding: str) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        read_workspace(write_workspace(tmp_path, {SHOP: _letters(line)}))

    assert finding in str(refused.value)


# --- where links may lead


LINKS = FILES["templates/email/christmas/body.html"].replace(
    "<p>Hello",
    '\n<p><a href="https://www.small.example/">Shop</a>\n<a href="https://social.example/us">Us</a></p>\n<p>Hello',
)
COUNTED = {"campaigns/hello.yaml": FILES["campaigns/hello.yaml"] + "track_clicks: true\n"}
BODY = "templates/email/christmas/body.html"


def test_a_link_elsewhere_is_nobodys_business_while_nobody_counts_clicks(tmp_path: Path) -> None:
    read_workspace(write_workspace(tmp_path, {BODY: LINKS}))


def test_a_campaign_that_counts_clicks_holds_its_template_to_the_allowed_hosts(tmp_path: Path) -> None:
    """ASVS 5.0 3.7.2."""
    folder = write_workspace(tmp_path, {BODY: LINKS, **COUNTED})
    finding = (
        f"{BODY}:3: leads to social.example, and hello counts clicks; allowed are small.example, *.small.example: "
        "add it to [links] allowed_hosts"
    )
    with pytest.raises(InvalidDefinition) as refused:
        read_workspace(folder)

    assert refused.value.findings == [finding]
    assert check_templates(folder) == ([finding], [])
    assert check_templates(folder, "order") == ([], [])


def test_what_the_shop_allows_may_be_linked_to(tmp_path: Path) -> None:
    hosts = FILES[SHOP] + '[links]\nallowed_hosts = ["www.small.example", "social.example"]\n'

    read_workspace(write_workspace(tmp_path, {BODY: LINKS, SHOP: hosts, **COUNTED}))


def test_a_list_of_hosts_holds_for_every_template(tmp_path: Path) -> None:
    only_own = FILES[SHOP] + '[links]\nallowed_hosts = ["www.small.example"]\n'
    with pytest.raises(InvalidDefinition, match=r"body.html:3: leads to social.example, and dispatcher.toml says"):
        read_workspace(write_workspace(tmp_path, {BODY: LINKS, SHOP: only_own}))


@pytest.mark.parametrize(
    ("href", "level", "message"),
    [
        ("https://small.example/o/{{ contact.country }}", "", ""),
        ("https://small.example/o/{{ contact.email }}", "warning", "carries contact.email to every server"),
        ("https://small.example/?u={{ contact.attributes.id|default(0) }}", "", ""),
        ("{{ unsubscribe_url }}", "", ""),
        ("{{ contact.attributes.page|default('') }}", "warning", "shows only when it is sent"),
        ("https://small.example{{ contact.country }}/", "warning", "shows only when it is sent"),
        ("https://{{ contact.country }}.small.example/", "warning", "shows only when it is sent"),
        ("https://evil.example/{{ contact.country }}", "error", "leads to evil.example"),
        ("https://small.example@evil.example/", "error", "cannot be read as https://host/"),
    ],
)
def test_a_link_with_something_filled_in_is_held_to_its_host(
    tmp_path: Path, href: str, level: str, message: str
) -> None:
    body = FILES[BODY].replace("<p>Hello", f'<p><a href="{href}">x</a>Hello')
    errors, warnings = check_templates(write_workspace(tmp_path, {BODY: body, **COUNTED}))

    found = {"error": errors, "warning": warnings}
    for name, findings in found.items():
        assert len(findings) == (name == level), findings
        assert all(message in finding for finding in findings)


def test_a_finding_in_the_layout_is_said_once_and_belongs_to_every_template(tmp_path: Path) -> None:
    layout = '<html lang="en"><body>\n{{ body }}\n{{ shop.nmae }} <a href="{{ unsubscribe_url }}">Out</a>\n'
    shared = {"templates/email/layout.html": layout, BODY: "<p>Hello</p>\n{{ shop.postal_address }}\n"}
    folder = write_workspace(tmp_path, {**shared, "templates/email/order/body.html": "<p>Thanks</p>"})
    finding = "templates/email/layout.html:3: shop.nmae is not known; did you mean name?"

    assert check_templates(folder) == ([finding], [])
    assert check_templates(folder, "order") == ([finding], [])
    with pytest.raises(InvalidDefinition) as refused:
        read_workspace(folder)
    assert refused.value.findings == [finding]
