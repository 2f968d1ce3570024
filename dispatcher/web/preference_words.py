"""The preference centre in words: what its template is given, in one language."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from dispatcher.content.filters import date_in
from dispatcher.content.pages import Say, page_language
from dispatcher.definitions import Shop, Silence
from dispatcher.errors import Refused
from dispatcher.hours import WEEKDAYS
from dispatcher.masking import masked_address
from dispatcher.preferences import choices, wishes
from dispatcher.preferences.choices import Pair
from dispatcher.preferences.data_links import channel_for
from dispatcher.preferences.standing import Channel, Choice, Standing
from dispatcher.preferences.whose import Person

_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_MIDNIGHT = time(0)


@dataclass(frozen=True, slots=True)
class Notice:
    """What an action came to, in any language: a key of the words, and what fills its places."""

    key: str
    wrong: bool = False
    pair: Pair | None = None
    until: datetime | None = None
    address: tuple[str, str] | None = None  #: channel, address in clear


class NoDays(Refused):
    """Hours, and no day on which they begin."""


@dataclass(frozen=True, slots=True)
class QuietForm:
    """Quiet hours as the form has them: hours of every day that is ticked, and whole days."""

    start: str = ""
    end: str = ""
    days: Sequence[str] = WEEKDAYS
    whole: Sequence[str] = ()

    @classmethod
    def of(cls, silences: Sequence[Silence]) -> QuietForm:
        whole = [silence for silence in silences if _is_whole(silence)]
        hours = next((silence for silence in silences if not _is_whole(silence)), None)
        days = tuple(day for silence in whole for day in silence.days)
        if hours is None:
            return cls(whole=days)
        return cls(f"{hours.start:%H:%M}", f"{hours.end:%H:%M}", hours.days, days)

    def silences(self) -> list[Silence]:
        """Return what was typed in as silences; ValueError if it is none, NoDays if only the days are missing."""
        found = []
        days, whole = _known(self.days), _known(self.whole)
        if self.start or self.end:
            if not (_CLOCK.fullmatch(self.start) and _CLOCK.fullmatch(self.end)) or self.start == self.end:
                raise ValueError
            if not days:
                raise NoDays("hours without a day")
            found.append(Silence.model_validate({"hours": f"{self.start}-{self.end}", "days": days}))
        if whole:
            found.append(Silence.model_validate({"hours": "00:00-24:00", "days": whole}))
        return found


def _is_whole(silence: Silence) -> bool:
    return silence.start == silence.end == _MIDNIGHT


def _known(days: Sequence[str]) -> tuple[str, ...]:
    return tuple(day for day in WEEKDAYS if day in days)


def context(
    shop: Shop, standing: Standing, language: str, notices: Sequence[Notice], typed: QuietForm | None
) -> dict[str, Any]:
    """Return what the page shows; nothing in it says more of the person than a masked address."""
    say, person = Say(language), standing.person
    quiet = typed or QuietForm.of(person.silences)
    today = person.now.astimezone(ZoneInfo((person.places.zones or ("UTC",))[0])).date()
    data_channel = channel_for(person)
    return {
        "shop_name": shop.shop.name,
        "notices": [(notice, _say(say, shop, standing, language, notice)) for notice in notices],
        "channels": [_channel(say, one, language) for one in standing.channels],
        "shown": " ".join(sorted(":".join(pair) for pair in choices.ticked(standing))),
        "pauses": list(wishes.PAUSES),
        "paused": date_in(language, _day(person, person.paused_until)) if person.paused_until else "",
        "first_day": today + timedelta(days=1),
        "last_day": today + wishes.LONGEST_PAUSE - timedelta(days=2),
        "quiet": quiet,
        "quiet_summary": _quiet_summary(say, person),
        "quiet_clock": _clock(say, person),
        "weekdays": WEEKDAYS,
        "locale": page_language(person.locale) if person.locale else language,
        "data_address": masked_address(data_channel, person.address_on(data_channel)),
    }


def wordings(shop: Shop, standing: Standing, language: str) -> dict[Pair, dict[str, str]]:
    """Return what the page says beside each topic that can be joined: the words that are agreed to."""
    say = Say(language, unbroken=False)
    return {
        (channel.name, choice.topic): choices.wording(
            language,
            "\n".join(
                (
                    f"{say('topics_title')}: {say(f'channel_{channel.name}')}",
                    f"☑ {choice.titles.title_for(language)}",
                    _consent_note(say, shop, channel.name),
                    f"[{say('topics_button')}]",
                )
            ),
        )
        for channel in standing.channels
        for choice in channel.choices
    }


def _consent_note(say: Say, shop: Shop, channel: str) -> str:
    return say("consent_note", shop=shop.shop.name, channel=channel)


def _channel(say: Say, channel: Channel, language: str) -> dict[str, Any]:
    return {
        "name": channel.name,
        "masked": masked_address(channel.name, channel.address) if channel.address else "",
        "closed": say(f"closed_{channel.closed}") if channel.closed else "",
        "choices": sorted(
            (_choice(say, channel.name, choice, language) for choice in channel.choices),
            key=lambda choice: choice["title"].casefold(),
        ),
    }


def _choice(say: Say, channel: str, choice: Choice, language: str) -> dict[str, Any]:
    note = ""
    if choice.waiting:
        note = say("topic_waiting")
    elif not choice.on and choice.how != "at once":
        note = say("topic_asks" if choice.how == "by message" else "topic_not_here")
    return {
        "value": f"{channel}:{choice.topic}",
        "title": choice.titles.title_for(language),
        "ticked": choice.on or choice.waiting,
        "disabled": choice.how == "not here" and not choice.on and not choice.waiting,
        "note": note,
    }


def _say(say: Say, shop: Shop, standing: Standing, language: str, notice: Notice) -> str:
    values = {"email": shop.shop.from_email}
    if notice.pair is not None:
        channel, topic = notice.pair
        title = shop.topics[topic].title_for(language) if topic in shop.topics else topic
        values |= {"topic": title, "channel": channel if channel in ("email", "sms") else "email"}
    if notice.until is not None:
        values["date"] = date_in(language, _day(standing.person, notice.until))
    if notice.address is not None:
        values["address"] = masked_address(*notice.address)
    return say(notice.key, **values)


def _day(person: Person, until: datetime) -> date:
    """Return the day of an instant where the person may be; of several places, where it is the earliest."""
    return min(until.astimezone(ZoneInfo(zone)).date() for zone in person.places.zones or ("UTC",))


def _quiet_summary(say: Say, person: Person) -> str:
    told = []
    for silence in person.silences:
        days = "" if len(silence.days) == len(WEEKDAYS) else ", ".join(say(f"day_{day}") for day in silence.days)
        hours = "" if _is_whole(silence) else f"{silence.start:%H:%M}–{silence.end:%H:%M}"
        told.append(" ".join(filter(None, (hours, f"({days})" if hours and days else days))))
    return "; ".join(filter(None, told)) or say("quiet_none")


def _clock(say: Say, person: Person) -> str:
    zones = person.places.zones
    if len(zones) != 1:
        return say("quiet_clock_many")
    return say("quiet_clock", zones=zones[0].rpartition("/")[2].replace("_", " "))
