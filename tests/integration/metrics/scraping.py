"""How the tests scrape a shop's figures."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from web_server import Web

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(page: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def scrape(web: Web) -> Samples:
    answer = web.ask("GET", "/metrics")
    assert answer.status == 200
    return samples_of(answer.text)


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"dispatcher_{name}", tuple(sorted(labels.items()))))
