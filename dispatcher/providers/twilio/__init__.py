"""Twilio's Messages resource: one call carries one SMS, through a Messaging Service that picks the sender."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import quote, urlencode

import orjson

from dispatcher.content.sms import sms_segments, with_way_out
from dispatcher.doubt import Doubtful, Sighting
from dispatcher.providers.http import Answer, Exchange, Http, NoAnswer, NotWritten, Request, retry_wait
from dispatcher.providers.protocol import (
    PAST_DEADLINE,
    Accepted,
    Envelope,
    Moment,
    NotSent,
    Receipt,
    Rejected,
    RetryAfter,
    Trial,
    Unknown,
)
from dispatcher.providers.twilio.codes import CODES, Refusal, Wait
from dispatcher.providers.twilio.records import Records
from dispatcher.providers.twilio.trying import try_account

DEFAULT_URL = "https://api.twilio.com"
_LONGEST_VALIDITY = 36_000  #: seconds; Twilio's own, and its default
_MOST_CHARACTERS = 1_600
_CALLS_AT_ONCE = 8  #: of a thread; Twilio limits how many are open at once


class Twilio:
    name = "twilio"
    slice_size = 40  # what one thread gets through well within a send deadline

    def __init__(
        self,
        http: Http,
        *,
        account_sid: str,
        auth_token: str,
        messaging_service_sid: str,
        public_url: str,
        url: str = DEFAULT_URL,
    ) -> None:
        self._http = http
        self._place, self._account = url, account_sid
        self._url = f"{url}/2010-04-01/Accounts/{account_sid}/Messages.json"
        self._service = messaging_service_sid
        self._callback = f"{public_url}/hooks/twilio/status?dispatcher_message_id="
        credentials = b64encode(f"{account_sid}:{auth_token}".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/x-www-form-urlencoded"}
        self._records = Records(
            http, url=self._url, authorization=self._headers["Authorization"], service=messaging_service_sid
        )

    def hand_over(self, slice_: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        receipts: list[Receipt] = []
        for start in range(0, len(slice_), _CALLS_AT_ONCE):
            receipts += self._some(slice_[start : start + _CALLS_AT_ONCE], moment, deadline)
            enough = next((receipt for receipt in receipts if _concerns_all(receipt)), None)
            if enough is not None:  # it would say the same to the others
                left = len(slice_) - len(receipts)
                return receipts + [enough if isinstance(enough, RetryAfter) else NotSent(_words(enough))] * left
        return receipts

    def try_account(self, seconds: float) -> list[Trial]:
        return try_account(self._place, self._account, self._service, self._headers, seconds)

    def look_up(self, doubtful: Sequence[Doubtful]) -> list[Sighting]:
        return self._records.look_up(doubtful, _text)

    def close(self) -> None:
        self._http.close()

    def _some(self, envelopes: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        """Hand over a few, all at once."""
        receipts: dict[int, Receipt] = {}
        requests: dict[int, Request] = {}
        for place, envelope in enumerate(envelopes):
            made = self._request(envelope, moment.instant(deadline))
            if isinstance(made, Request):
                requests[place] = made
            else:
                receipts[place] = made
        answers = self._http.post(list(requests.values()), deadline) if requests else []
        for place, answer in zip(requests, answers, strict=True):
            receipts[place] = receipt_of(answer, envelopes[place])
        return [receipts[place] for place in range(len(envelopes))]

    def _request(self, envelope: Envelope, latest: datetime) -> Request | Receipt:
        """Return the call, or what is known without one; Twilio has it at `latest`, from when on its validity runs."""
        validity = _LONGEST_VALIDITY
        if envelope.closes_at is not None:
            validity = min(int((envelope.closes_at - latest).total_seconds()), _LONGEST_VALIDITY)
        if validity < 1:
            return NotSent(PAST_DEADLINE)
        text = _text(envelope)
        if len(text) > _MOST_CHARACTERS:
            return Rejected(f"the text has more than {_MOST_CHARACTERS:,} characters", scope="template")
        form = {
            "To": envelope.to,
            "MessagingServiceSid": self._service,
            "Body": text,
            "StatusCallback": f"{self._callback}{envelope.message_id}",
            "ValidityPeriod": str(validity),
        }
        try:
            body = urlencode(form, quote_via=quote).encode()
        except UnicodeEncodeError:
            return Rejected("it has half a character, which is no text")
        return Request(self._url, body, self._headers)


def _text(envelope: Envelope) -> str:
    text, language = envelope.content.text, envelope.content.locale
    return with_way_out(text, language) if envelope.marketing else text


def receipt_of(exchange: Exchange, envelope: Envelope) -> Receipt:
    """Return what an answer of Twilio means.  Whatever it says with a 5xx, it may have sent it (its error 20500)."""
    if isinstance(exchange, NotWritten):
        return NotSent(exchange.detail, unreachable=exchange.unreachable)
    if isinstance(exchange, NoAnswer):
        return Unknown(exchange.detail, exchange.first_byte)
    if 200 <= exchange.status < 300:
        return Accepted(_field(exchange, "sid"), exchange.first_byte, units=sms_segments(_text(envelope))[1])
    if not 400 <= exchange.status < 500 or not exchange.whole:
        return Unknown(f"Twilio answered {exchange.status}", exchange.first_byte)
    return _refusal(exchange)


def _refusal(answer: Answer) -> Receipt:
    """Return what a complete 4xx means; the words are ours, as Twilio's contain the number."""
    code = _field(answer, "code")
    detail = f"Twilio refused it: {code or answer.status}"
    known = CODES.get(int(code)) if code and code.isdecimal() else None
    if answer.status == 429 and not isinstance(known, Wait):
        known = Wait()
    if isinstance(known, Wait):
        return RetryAfter(detail, known.wait or retry_wait(answer.headers))
    if known is None and answer.status == 408:
        return NotSent(detail, timedelta(seconds=5), answered=True)
    if known is None:
        known = Refusal("account") if answer.status in (401, 403, 404) else Refusal()
    return Rejected(detail, answer.first_byte, suppress=known.suppress, scope=known.scope)


def _field(answer: Answer, name: str) -> str | None:
    """Return a field of a JSON answer as text, None if there is no such thing in it."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None
    value = body.get(name) if isinstance(body, dict) else None
    return str(value) if isinstance(value, (str, int)) else None


def _concerns_all(receipt: Receipt) -> bool:
    return isinstance(receipt, RetryAfter) or (isinstance(receipt, Rejected) and receipt.scope == "account")


def _words(receipt: Receipt) -> str:
    return "" if isinstance(receipt, Accepted) else receipt.detail
