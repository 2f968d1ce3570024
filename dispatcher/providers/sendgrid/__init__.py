"""SendGrid's Mail Send (v3): one request carries a slice of mails, and is taken whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from uuid import UUID

from dispatcher.doubt import Doubtful, Sighting
from dispatcher.providers.http import Http, Request
from dispatcher.providers.protocol import Accepted, Entry, Envelope, Moment, Receipt, Rejected, TheirList, Trial
from dispatcher.providers.sendgrid.activity import Activity
from dispatcher.providers.sendgrid.answers import Refused, meaning
from dispatcher.providers.sendgrid.drafts import MOST_PEOPLE, Draft, drafts_of
from dispatcher.providers.sendgrid.lists import Lists
from dispatcher.providers.sendgrid.trying import try_account

DEFAULT_URL = "https://api.sendgrid.com"
DEFAULT_SLICE = 250  #: what one lost answer may leave in doubt
#: So many mails refused one by one, and none taken: it is what they share.
_ENOUGH_ALONE = 8


class SendGrid:
    name = "sendgrid"

    def __init__(
        self,
        http: Http,
        *,
        api_key: str,
        url: str = DEFAULT_URL,
        slice_size: int = DEFAULT_SLICE,
        unsubscribe_group: int | None = None,
        reads_activity: bool = False,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._http = http
        self._place = url
        self._activity = Activity(http, api_key=api_key, url=url) if reads_activity else None
        self._lists = Lists(http, api_key=api_key, url=url, group=unsubscribe_group, pause=pause)
        self._url = f"{url}/v3/mail/send"
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        self.slice_size = min(slice_size, MOST_PEOPLE)

    def hand_over(
        self,
        slice_: Sequence[Envelope],
        moment: Moment,  # noqa: ARG002 - the instants are in the envelopes; SendGrid is told none
        deadline: float,
    ) -> list[Receipt]:
        work = _Work()
        work.begin(slice_)
        while work.rounds:
            drafts = work.rounds.pop()
            requests = [Request(self._url, draft.body, self._headers) for draft in drafts]
            for draft, exchange in zip(drafts, self._http.post(requests, deadline), strict=True):
                work.note(draft, meaning(exchange))
        return [work.receipts[envelope.message_id] for envelope in slice_]

    def try_account(self, seconds: float) -> list[Trial]:
        return try_account(self._place, self._headers, seconds)

    def look_up(self, doubtful: Sequence[Doubtful]) -> list[Sighting]:
        return [] if self._activity is None else self._activity.look_up(doubtful)

    def suppression_lists(self) -> Sequence[TheirList]:
        return self._lists.all()

    def entries(self, list_: TheirList, until: datetime) -> Iterator[list[Entry]]:
        return self._lists.entries(list_, until)

    def since(self, list_: TheirList, address: str) -> datetime | None:
        return self._lists.since(list_, address)

    def put_on(self, list_: TheirList, addresses: Sequence[str]) -> list[str]:
        return self._lists.put_on(list_, addresses)

    def take_off(self, list_: TheirList, address: str) -> None:
        self._lists.take_off(list_, address)

    def close(self) -> None:
        self._http.close()


class _Work:
    """What is known of a slice: who has a receipt, and which requests are still to be made.

    A request that was refused was taken from nobody, so whoever is not the reason goes into another one.
    """

    def __init__(self) -> None:
        self.receipts: dict[UUID, Receipt] = {}
        self.rounds: list[list[Draft]] = []  # the last one first, each at once
        self._taken = False
        self._refused_alone = 0

    def begin(self, slice_: Sequence[Envelope]) -> None:
        writable = [envelope for envelope in slice_ if self._is_writable(envelope)]
        if writable:
            self.rounds.append(drafts_of(writable))

    def _is_writable(self, envelope: Envelope) -> bool:
        content = envelope.content
        try:
            "".join((content.subject, content.text, content.html or "", envelope.to)).encode()
        except UnicodeEncodeError:
            self.receipts[envelope.message_id] = Rejected("it has half a character, which is no text")
            return False
        return True

    def note(self, draft: Draft, said: Receipt | Refused) -> None:
        if isinstance(said, Refused):
            self._look_again(draft, said)
            return
        self._taken |= isinstance(said, Accepted)
        self._settle(draft.envelopes, said)

    def _look_again(self, draft: Draft, refused: Refused) -> None:
        """Cut out the offenders, where they were named; else halve the request, until whoever it is stands alone."""
        people = draft.envelopes
        offenders = {place: why for place, why in refused.offenders.items() if place < len(people)}
        if offenders:
            for place, why in offenders.items():
                self._settle([people[place]], why)
            others = [person for place, person in enumerate(people) if place not in offenders]
            if others:
                self.rounds.append(drafts_of(others))
        elif len(people) == 1:
            self._refused_alone += 1
            self._settle(people, refused.otherwise)
        elif self._refused_alone >= _ENOUGH_ALONE and not self._taken:
            said = refused.otherwise
            self._settle(people, Rejected(said.detail, said.handed_over, scope="template"))
        else:
            middle = len(people) // 2
            self.rounds.append(drafts_of(people[middle:]))
            self.rounds.append(drafts_of(people[:middle]))

    def _settle(self, people: Sequence[Envelope], receipt: Receipt) -> None:
        for person in people:
            self.receipts[person.message_id] = receipt
