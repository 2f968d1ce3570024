"""A small workspace for tests, written file by file so that each test can break one of them."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "dispatcher.toml": """\
[shop]
name = "Small Shop"
from_email = "hello@small.example"
postal_address = "1 High Street, London"
zone = "Europe/London"
countries = ["GB"]

[quiet_hours]
sms = ["20:00-09:00"]

[[caps]]
name = "daily"
max = 1
window = "24h"

[topics.offers]
title = {en = "Offers"}
channels = ["email", "sms"]

[topics.letters]
title = {en = "Letters"}
channels = ["email"]
""",
    "segments/everybody.yaml": """\
name: everybody
match: {attribute: country, in: [GB, FR, US]}
""",
    "segments/fans.yaml": """\
name: fans
match:
  event: order.placed
  where: {interest: christmas}
""",
    "campaigns/christmas.yaml": """\
name: christmas
channel: email
topic: offers
segment: fans
template: christmas
schedule: {cron: "0 10 * * mon", zone: Europe/London}
expires_after: 12h
holdout: 5%
""",
    "campaigns/hello.yaml": """\
name: hello
channel: email
segment: everybody
template: christmas
""",
    "templates/email/christmas/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/email/christmas/subject.txt": "For you\n",
    "templates/email/christmas/body.html": """\
<html lang="en"><body><p>Hello {{ contact.first_name }}</p>
<p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p><p>{{ shop.postal_address }}</p></body></html>
""",
    "templates/email/order/meta.yaml": "class: transactional\n",
    "templates/email/order/subject.txt": "Your order\n",
    "templates/email/order/body.html": "<html lang='en'><body><p>Thank you</p></body></html>\n",
}


def write_workspace(folder: Path, changes: dict[str, str | None] | None = None) -> Path:
    """Write the small workspace into `folder`, with some files other than usual (None: left out)."""
    for name, content in {**FILES, **(changes or {})}.items():
        if content is None:
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder
