"""Is this a request that SendGrid or Twilio would understand?  Their OpenAPI files say so, and what those leave open.

The files alone take a misspelt field, an empty list and a text of any length; the overlays here close what is known.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from jsonschema import Draft202012Validator, FormatChecker

FOLDER = Path(__file__).parent / "openapi"
_FORMATS = FormatChecker(["email"])
_RESERVED_HEADERS = (
    "x-sg-id|x-sg-eid|received|dkim-signature|content-type|content-transfer-encoding|to|from|subject|reply-to|cc|bcc"
)
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}
# Python and JavaScript read this alike; without regard to case, letter by letter.
_OWN_HEADERS = {
    **_STRINGS,
    "propertyNames": {
        "pattern": "^[!-9;-~]+$",
        "not": {"pattern": f"^({''.join(f'[{c}{c.upper()}]' if c.isalpha() else c for c in _RESERVED_HEADERS)})$"},
    },
}


def read_both() -> None:
    """Read the files now: it takes a while, which no answer should."""
    sendgrid_schema()
    twilio_schema()


def sendgrid_faults(headers: Mapping[str, str], body: bytes) -> list[str]:
    """Return what is wrong with a POST to /v3/mail/send: paths and reasons, in no order."""
    faults = []
    if not headers.get("Authorization", "").startswith("Bearer "):
        faults.append("authorization: no bearer")
    if headers.get("Content-Type", "").split(";")[0] != "application/json":
        faults.append("content type: not JSON")
    if len(body) > 30_000_000:
        faults.append("body: over 30 MB")
    try:
        request = json.loads(body)
    except ValueError:
        return [*faults, "body: not JSON"]
    faults += [_shown(error) for error in sendgrid_schema().iter_errors(request)]
    return faults or [*_over_budget(request)]


def _over_budget(request: Any) -> Iterator[str]:
    """Yield what SendGrid's documents limit and JSON Schema cannot say."""
    people = request["personalizations"]
    if sum(len(person.get(kind, ())) for person in people for kind in ("to", "cc", "bcc")) > 1_000:
        yield "personalizations: over 1,000 recipients"
    for place, person in enumerate(people):
        for field in ("substitutions", "custom_args"):
            if sum(len(k.encode()) + len(v.encode()) for k, v in person.get(field, {}).items()) > 10_000:
                yield f"personalizations.{place}.{field}: over 10,000 bytes"
    if "subject" not in request and not all("subject" in person for person in people):
        yield "subject: is missing"
    kinds = [part["type"] for part in request["content"]]
    if kinds != sorted(kinds, key=["text/plain", "text/html"].index):
        yield "content: text/plain comes first"


_OPEN_PATH = re.compile(r"\{(\w+)\}")


def suppression_faults(method: str, target: str, headers: Mapping[str, str], body: bytes) -> list[str]:
    """Return what is wrong with a request about SendGrid's suppression lists: path, query, headers, body."""
    document = suppressions_document()
    parts = urlsplit(target)
    found = next(
        ((path, values) for path, pattern in _patterns() if (values := pattern.fullmatch(parts.path)) is not None), None
    )
    if found is None or method.lower() not in document["paths"][found[0]]:
        return [f"no such operation: {method} {parts.path}"]
    operation = document["paths"][found[0]][method.lower()]
    faults = [] if headers.get("Authorization", "").startswith("Bearer ") else ["authorization: no bearer"]
    if "@" in parts.path or any("%" not in value for name, value in found[1].groupdict().items() if name == "email"):
        faults.append("path: an address must be percent-encoded")
    known = {one["name"]: one for one in (_resolved(document, p) for p in operation.get("parameters", ()))
             if one["in"] == "query"}  # fmt: skip
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            faults.append(f"query: there is no {name}")
            continue
        typed: Any = int(value) if known[name]["schema"]["type"] == "integer" and value.isdecimal() else value
        faults += [f"query {name}: {_shown(e)}" for e in Draft202012Validator(known[name]["schema"]).iter_errors(typed)]
    if "requestBody" in operation:
        schema = _resolved(document, operation["requestBody"])["content"]["application/json"]["schema"]
        try:
            faults += [_shown(error) for error in _validator(schema, document).iter_errors(json.loads(body))]
        except ValueError:
            faults.append("body: not JSON")
    elif body:
        faults.append("body: there is none in this operation")
    return faults


@cache
def suppressions_document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / "tsg_suppressions_v3.json").read_bytes())
    _close(document["components"]["schemas"])
    _close(document["components"]["requestBodies"])
    return document


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Return every path with its pattern, those without a hole in them first."""
    paths = sorted(suppressions_document()["paths"], key=lambda path: ("{" in path, path))
    return [(path, re.compile(_OPEN_PATH.sub(r"(?P<\1>[^/]+)", path))) for path in paths]


def _resolved(document: Mapping[str, Any], value: Any) -> Any:
    while "$ref" in value:
        found: Any = document
        for name in value["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        value = found
    return value


def twilio_faults(account_sid: str, headers: Mapping[str, str], body: bytes) -> list[str]:
    """Return what is wrong with a POST to Accounts/{account_sid}/Messages.json."""
    faults = []
    user, _, password = _basic(headers.get("Authorization", "")).partition(":")
    if user != account_sid or not password:
        faults.append("authorization: not this account's")
    if headers.get("Content-Type", "").split(";")[0] != "application/x-www-form-urlencoded":
        faults.append("content type: not a form")
    pairs = parse_qsl(body.decode("ascii", "replace"), keep_blank_values=True, strict_parsing=bool(body))
    form: dict[str, Any] = dict(pairs)
    if len(form) != len(pairs):
        faults.append("form: a field twice")
    for name in ("ValidityPeriod", "Attempt"):  # a form has only texts
        if form.get(name, "").isdecimal():
            form[name] = int(form[name])
    faults += [_shown(error) for error in twilio_schema().iter_errors(form)]
    callback = urlsplit(form.get("StatusCallback", "https://x.example"))
    if not callback.scheme.startswith("http") or not callback.hostname or "_" in callback.hostname:
        faults.append("StatusCallback: not an address Twilio calls")
    return faults


def twilio_list_faults(account_sid: str, headers: Mapping[str, str], query: str) -> list[str]:
    """Return what is wrong with a GET of Accounts/{account_sid}/Messages.json."""
    faults = []
    user, _, password = _basic(headers.get("Authorization", "")).partition(":")
    if user != account_sid or not password:
        faults.append("authorization: not this account's")
    document = json.loads((FOLDER / "twilio_api_v2010_messaging.json").read_bytes())
    get = document["paths"]["/2010-04-01/Accounts/{AccountSid}/Messages.json"]["get"]
    known = {one["name"]: one["schema"] for one in get["parameters"] if one["in"] == "query"}
    known["To"] = {**known["To"], "pattern": r"^\+[1-9][0-9]{6,14}$"}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            faults.append(f"query: there is no {name}")
            continue
        typed: Any = int(value) if known[name]["type"] == "integer" and value.isdecimal() else value
        faults += [f"query {name}: {_shown(e)}" for e in Draft202012Validator(known[name]).iter_errors(typed)]
    return faults


def twilio_message_faults(record: Mapping[str, Any]) -> list[str]:
    """Return what of a message's record is not as Twilio describes it: a stand-in must not be kinder than Twilio."""
    document = json.loads((FOLDER / "twilio_api_v2010_messaging.json").read_bytes())
    schema = document["components"]["schemas"]["api.v2010.account.message"]
    validator = _validator({**schema, "additionalProperties": False}, document)
    return [_shown(error) for error in validator.iter_errors(record)]


_ACTIVITY_QUERY = re.compile(r"unique_args\['[\w-]+'\]=\"[0-9a-f-]{36}\"")


def activity_faults(target: str, headers: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a GET of /v3/messages or /v3/messages/{msg_id}, as SendGrid's reference has them."""
    parts = urlsplit(target)
    faults = [] if headers.get("Authorization", "").startswith("Bearer ") else ["authorization: no bearer"]
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.path != "/v3/messages":
        return faults + ["query: there is none here"] * bool(query)
    if set(query) - {"query", "limit"}:
        faults.append("query: a name that is none")
    if _ACTIVITY_QUERY.fullmatch(query.get("query", "")) is None:
        faults.append('query: not like name="value"')
    if not 1 <= int(query.get("limit", "10")) <= 1_000:
        faults.append("limit: out of bounds")
    return faults


def _basic(authorization: str) -> str:
    kind, _, encoded = authorization.partition(" ")
    return base64.b64decode(encoded).decode() if kind == "Basic" else ""


def _shown(error: Any) -> str:
    return f"{'.'.join(map(str, error.absolute_path)) or 'body'}: {error.message[:200]}"


@cache
def sendgrid_schema(*, tightened: bool = True) -> Draft202012Validator:
    document = json.loads((FOLDER / "tsg_mail_v3.json").read_bytes())
    schema = document["components"]["requestBodies"]["PostMailSend"]["content"]["application/json"]["schema"]
    if tightened:
        _close(schema)
        _close(document["components"]["schemas"])
        properties = schema["properties"]
        person = properties["personalizations"]["items"]["properties"]
        properties["custom_args"] = person["custom_args"] = _STRINGS  # the file says a text, and means an object
        properties["headers"] = person["headers"] = _OWN_HEADERS
        properties["personalizations"]["minItems"] = 1
        person["to"] |= {"minItems": 1, "maxItems": 1_000}
        properties["content"]["minItems"] = 1
        schema["required"] = ["personalizations", "from", "content"]
    return _validator(schema, document)


@cache
def twilio_schema(*, tightened: bool = True) -> Draft202012Validator:
    document = json.loads((FOLDER / "twilio_api_v2010_messaging.json").read_bytes())
    post = document["paths"]["/2010-04-01/Accounts/{AccountSid}/Messages.json"]["post"]
    schema = post["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    if tightened:
        _close(schema)
        schema["properties"]["To"]["pattern"] = r"^\+[1-9][0-9]{6,14}$"
        schema["properties"]["Body"] |= {"minLength": 1, "maxLength": 1_600}
        schema["properties"]["ValidityPeriod"] |= {"minimum": 1, "maximum": 36_000}
        schema["allOf"] = [
            {"anyOf": [{"required": ["From"]}, {"required": ["MessagingServiceSid"]}]},
            {"anyOf": [{"required": ["Body"]}, {"required": ["MediaUrl"]}, {"required": ["ContentSid"]}]},
        ]
    return _validator(schema, document)


def _close(schema: Any) -> None:
    """Let no object have a field that its description does not name."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
        for inner in schema.values():
            _close(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _close(inner)


def _validator(schema: Any, document: Any) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator({**deepcopy(schema), "components": document["components"]}, format_checker=_FORMATS)
