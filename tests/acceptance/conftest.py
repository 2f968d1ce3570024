"""The house that several modules share: a crowd of people, and everything there twice."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from house import CROWD, ROOMY_CAPS, Live, live_shop, own_servers, write_people
from small_workspace import FILES
from sqlalchemy.engine import URL

from dispatcher.up import Room, rooms_of

HELLO = FILES["campaigns/hello.yaml"]
WORKSPACE = {
    **ROOMY_CAPS,
    "campaigns/again.yaml": HELLO.replace("hello", "again"),
    "campaigns/hourly.yaml": HELLO.replace("hello", "hourly") + 'schedule: {cron: "0 * * * *", zone: Europe/London}\n',
}
SECOND_CLOCK = Room("clock-2", [sys.executable, "-P", "-m", "scheduler"], registers=True)
SECOND_CONTROL = Room("control-2", [sys.executable, "-P", "-m", "workers", "control"], registers=True)


@pytest.fixture(scope="session")
def crowded(
    servers: tuple[str, str], template_database: URL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("crowded")
    people = write_people(folder / "people.csv", CROWD)
    rooms = [*rooms_of(2), SECOND_CLOCK, SECOND_CONTROL]
    with (
        own_servers(servers, template_database) as own,
        live_shop(folder / "home", servers=own, workspace=WORKSPACE, people=people, rooms=rooms) as live,
    ):
        yield live
        live.check_invariants()  # of everything that all the tests did here


@pytest.fixture
def live(crowded: Live) -> Iterator[Live]:
    """The crowded house, with a sandbox that takes everything at once."""
    crowded.tell_sandbox()
    yield crowded
    crowded.tell_sandbox()
