"""What a body says of consent, and of when it was given."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from reading_bodies import told
from storefronts import (
    MAIL_CONSENT,
    TEXT_CONSENT,
    email_consent,
    shopify_customer,
    sms_consent,
    woocommerce_customer,
    woocommerce_order,
)


def test_consent_is_said_by_its_own_time_under_either_name_of_the_customer() -> None:
    [mail] = told(MAIL_CONSENT, email_consent(77, "subscribed", "2026-11-02T10:00:00Z")).claims
    [text] = told(TEXT_CONSENT, sms_consent(77, "unsubscribed", "2026-11-03T10:00:00Z")).claims

    assert (mail.channel, mail.action, mail.occurred_at) == ("email", "granted", datetime(2026, 11, 2, 10, tzinfo=UTC))
    assert (text.channel, text.action, text.occurred_at) == ("sms", "withdrawn", datetime(2026, 11, 3, 10, tzinfo=UTC))
    assert text.source == "shopify consent: collected from SHOPIFY"


@pytest.mark.parametrize(
    ("state", "action"),
    [("SUBSCRIBED", "granted"), ("pending", "requested"), ("unsubscribed", "withdrawn"), ("not_subscribed", None),
     ("invalid", None), ("redacted", None), (None, None), ("a state of next year", None)],
)  # fmt: skip
def test_a_state_of_consent_claims_what_it_means(state: str | None, action: str | None) -> None:
    record = shopify_customer(
        email_marketing_consent={
            "state": state,
            "consent_updated_at": "2026-11-02T10:00:00Z",
            "opt_in_level": "unknown",
        }
    )
    claims = told("customers/update", record).claims

    assert [(claim.action, claim.opt_in_level) for claim in claims] == ([(action, None)] if action else [])


def test_the_time_of_the_record_is_never_that_of_the_consent() -> None:
    record = shopify_customer(email_marketing_consent={"state": "subscribed", "consent_updated_at": None})

    [claim] = told("customers/update", record).claims
    assert claim.occurred_at is None  # so its arrival counts


def test_consent_without_a_time_or_of_nobody_is_read_as_what_it_says() -> None:
    said = {"state": "subscribed", "opt_in_level": "unknown"}  # as imported customers have it

    [claim] = told("customers/update", shopify_customer(email_marketing_consent=said)).claims
    assert (claim.action, claim.occurred_at, claim.opt_in_level) == ("granted", None, None)
    ticked = {"accepts_marketing": True, "accepts_marketing_updated_at": "2021-12-31T19:00:00-05:00"}
    nobody = shopify_customer(email=None, email_marketing_consent=None, sms_marketing_consent=None, **ticked)
    assert told("customers/create", nobody).claims == ()


def test_consent_before_2023_needs_its_time() -> None:
    ticked = shopify_customer(accepts_marketing=True, accepts_marketing_updated_at="2021-01-01T00:00:00Z")

    assert [c.action for c in told("customers/update", ticked).claims] == ["granted"]
    assert told("customers/update", ticked | {"accepts_marketing_updated_at": None}).claims == ()
    assert told("customers/update", ticked | {"accepts_marketing": False}).claims == ()


def test_woocommerce_never_says_that_anybody_agreed() -> None:
    for topic, body in (("order.created", woocommerce_order()), ("customer.updated", woocommerce_customer())):
        assert told(topic, body).claims == ()
