"""A whole house keeps SendGrid's lists and its own in step by itself, while SendGrid loses replies."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from house import ROOMY_CAPS, eventually, live_shop, own_servers, write_people
from sqlalchemy import text
from sqlalchemy.engine import URL
from standin_lists import GROUP, Say
from standins import stand_in

from dispatcher import suppression

pytestmark = pytest.mark.thorough


def test_an_opt_out_is_on_their_list_within_a_minute_and_theirs_is_here(
    servers: tuple[str, str], template_database: URL, tmp_path: Path
) -> None:
    dice = random.Random(4)
    with stand_in() as api, own_servers(servers, template_database) as own:
        api.lists.answers = lambda _method, _target: Say(0, lose=True, accept=True) if dice.random() < 0.3 else None
        api.lists.put("spam_reports", "stranger@nowhere.example")
        providers = {"email_provider": "sendgrid", "sendgrid_api_key": "SG.secret", "sendgrid_url": api.url,
                     "sendgrid_unsubscribe_group": GROUP, "public_url": "https://shop.example"}  # fmt: skip
        people = write_people(tmp_path / "people.csv", 20)
        with live_shop(
            tmp_path / "home", servers=own, workspace=ROOMY_CAPS, people=people, providers=providers
        ) as live:
            complaint = "SELECT count(*) AS n FROM suppression WHERE reason = 'complaint'"
            eventually(lambda: live.rows(complaint)[0].n == 1, saying="their spam report is here")

            with live.runtime.database.begin() as connection:
                address = connection.execute(
                    text("SELECT email_address_id FROM contact WHERE email_address_id IS NOT NULL ORDER BY id LIMIT 1")
                ).scalar_one()
                suppression.add(connection, address, "unsubscribe", source="test")
            taken = eventually(lambda: len(api.lists.on(f"group-{GROUP}")) == 1, saying="our opt-out is there")
            assert taken < 60
        assert api.lists.complaints == []
