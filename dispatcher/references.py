"""What a campaign says of other definitions: the same questions for a folder that is applied and for the API."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from dispatcher.definitions import Campaign, Shop, TemplateMeta


@dataclass(frozen=True, slots=True)
class Known:
    """What there is to refer to."""

    segments: Collection[str]
    templates: Mapping[tuple[str, str], TemplateMeta | None]  #: by channel and name; None: there, and wrong in itself
    shop: Shop | None  #: None: wrong in itself


def objections(campaign: Campaign, known: Known) -> Iterator[tuple[str, str]]:
    """Yield the fields of a campaign that name what is not there, or what cannot be sent to a segment, and why."""
    if campaign.segment not in known.segments:
        yield "segment", missing("segments", campaign.segment, known.segments)
    template = (campaign.channel, campaign.template)
    if template not in known.templates:
        names = [name for channel, name in known.templates if channel == campaign.channel]
        yield "template", missing(f"templates/{campaign.channel}", campaign.template, names)
    elif (meta := known.templates[template]) is not None and meta.class_ != "marketing":
        yield (
            "template",
            f"{campaign.template} is {meta.class_}; only marketing templates can be sent to a segment",
        )
    if campaign.topic is not None and known.shop is not None:
        yield from _about_the_topic(campaign.topic, campaign.channel, known.shop)


def _about_the_topic(topic: str, channel: str, shop: Shop) -> Iterator[tuple[str, str]]:
    if topic not in shop.topics:
        yield "topic", f"dispatcher.toml has no [topics.{topic}]{did_you_mean(topic, shop.topics)}"
    elif channel not in shop.topics[topic].channels:
        yield "topic", f"{topic} is not a topic for {channel}; add {channel} to its channels in dispatcher.toml"


def missing(folder: str, wanted: str, known: Iterable[str]) -> str:
    return f"there is no {folder}/{wanted}{did_you_mean(wanted, known)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` if one of the known names is close, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""
