"""A shop of any size for the benchmarks: contacts who agreed, one campaign for all of them, and order confirmations."""

from __future__ import annotations

import csv
from pathlib import Path

FILES = {
    "dispatcher.toml": """\
[shop]
name = "Benchmark Shop"
from_email = "hello@shop.example"
postal_address = "1 High Street, London"
zone = "Europe/London"
countries = ["GB"]

[[caps]]
name = "daily"
max = 1
window = "24h"

[topics.offers]
title = {en = "Offers"}
channels = ["email"]
""",
    "segments/everybody.yaml": "name: everybody\nmatch: {attribute: country, eq: GB}\n",
    "campaigns/bench.yaml": """\
name: bench
channel: email
topic: offers
segment: everybody
template: bench
expires_after: 7d
""",
    "triggers/order.yaml": (
        'name: order\non: order.placed\nkey: "{{ event.source_key }}"\nchannel: email\ntemplate: order-placed\n'
    ),
    **{
        f"templates/email/{name}/{file}": content
        for name, field in (("order", "data"), ("order-placed", "event"))
        for file, content in {
            "meta.yaml": "class: transactional\n",
            "subject.txt": f"Your order {{{{ {field}.number }}}}\n",
            "body.html": f"<html lang='en'><body><p>Thank you for order {{{{ {field}.number }}}}.</p></body></html>\n",
        }.items()
    },
    "templates/email/bench/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/email/bench/subject.txt": "{{ contact.first_name or 'Hello' }}, new things for you\n",
    "templates/email/bench/body.html": """\
<!doctype html>
<html lang="en"><head><title>New things</title></head><body>
<h1>Dear {{ contact.first_name or "customer" }},</h1>
<p>{% for thing in ["a cake stand", "a lantern", "a paper chain"] %}{{ loop.index }}. {{ thing }}<br>{% endfor %}</p>
{% if contact.country == "GB" %}<p>Free delivery in the United Kingdom.</p>{% endif %}
<p><a href="{{ unsubscribe_url }}">Unsubscribe</a> &middot; {{ shop.name }}, {{ shop.postal_address }}</p>
</body></html>
""",
}

COLUMNS = ("contact_id", "first_name", "last_name", "email", "country", "timezone", "locale", "email_consent",
           "email_opt_in_level", "email_consent_at", "email_consent_source")  # fmt: skip


def write_workspace(folder: Path, *, links: int = 0) -> Path:
    """Write the workspace; return its folder.  `links`: so many in each mail, whose clicks are counted."""
    files = dict(FILES)
    if links:
        files["campaigns/bench.yaml"] += "track_clicks: true\nutm: {source: bench}\n"
        body = "templates/email/bench/body.html"
        shelf = "".join(f'<p><a href="https://shop.example/shelf/{n}?page=1">Shelf {n}</a></p>\n' for n in range(links))
        files[body] = files[body].replace("<p>{% for", f"{shelf}<p>{{% for")
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def write_contacts(path: Path, number: int) -> Path:
    """Write that many contacts, each of whom agreed to offers by e-mail; return the file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for n in range(number):
            rows.writerow(
                (n, f"First{n}", f"Last{n}", f"reader{n}@mail-{n % 500}.example", "GB", "Europe/London", "en-GB",
                 "subscribed", "single_opt_in", "2024-01-01T00:00:00Z", "checkout")
            )  # fmt: skip
    return path
