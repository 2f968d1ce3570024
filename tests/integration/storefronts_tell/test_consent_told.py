"""Consent that storefronts tell of counts by its own time, and never undoes a withdrawal."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text
from storefronts import MAIL_CONSENT, TEXT_CONSENT, email_consent, shopify_customer, shopify_order, sms_consent
from telling import Shop, ago

from dispatcher import consent
from dispatcher.clock import read_now
from dispatcher.contacts import find_contact


def test_consent_is_by_its_own_time_in_whatever_order_it_comes(shop: Shop) -> None:
    shop.told("customers/update", shopify_customer())
    shop.told(MAIL_CONSENT, email_consent(77, "unsubscribed", ago(shop, days=2)))
    shop.told(MAIL_CONSENT, email_consent(77, "subscribed", ago(shop, days=5)))
    shop.told(TEXT_CONSENT, sms_consent(77, "subscribed", ago(shop, days=5)))

    assert shop.consents("shopify-77") == {("email", "offers"): "withdrawn", ("email", "letters"): "withdrawn",
                                           ("sms", "offers"): "granted"}  # fmt: skip
    times = shop.rows("SELECT DISTINCT occurred_at FROM consent_event WHERE action = 'granted' AND channel = 'sms'")
    assert shop.now - times[0] > timedelta(days=4)


def test_a_storefront_never_grants_again_what_the_person_withdrew(shop: Shop) -> None:
    shop.told("customers/update", shopify_customer())
    shop.told(MAIL_CONSENT, email_consent(77, "subscribed", ago(shop, days=5)))
    with shop.database.begin() as connection:
        contact_id = find_contact(connection, shop.key_ring, "shopify-77")
        address_id = connection.scalar(text("SELECT email_address_id FROM contact"))
        consent.withdraw(connection, shop.key_ring, contact_id, "email", ["offers"], address_id=address_id,
                         source="link", now=read_now(connection))  # fmt: skip
    for state, at in (
        ("subscribed", ago(shop, seconds=-60)),
        ("subscribed", None),
        ("pending", ago(shop, seconds=-90)),
    ):
        shop.told(MAIL_CONSENT, email_consent(77, state, at))

    assert shop.consents("shopify-77")[("email", "offers")] == "withdrawn"
    assert shop.rows("SELECT count(*) > 2 FROM consent_event WHERE topic = 'offers' AND actor = 'shop'") == [True]


def test_consent_may_come_before_the_customer_does(shop: Shop) -> None:
    shop.told(MAIL_CONSENT, email_consent(77, "subscribed", ago(shop, days=5)))
    shop.told(TEXT_CONSENT, sms_consent(77, "unsubscribed", ago(shop, days=5), phone=None))
    shop.told("customers/create", shopify_customer())

    assert shop.consents("shopify-77")[("email", "offers")] == "granted"
    assert shop.consents("shopify-77")[("sms", "offers")] == "withdrawn"
    assert shop.rows("SELECT count(*) FROM contact") == [1]


def test_a_shop_chooses_the_topics_that_its_consent_speaks_for(shop: Shop) -> None:
    toml = (shop.flows.home / "workspace" / "dispatcher.toml").read_text()
    shop.flows.apply({"dispatcher.toml": toml + '\n[shopify]\ntopics = ["letters"]\ninterests = ["vendor"]\n'})
    shop.told(MAIL_CONSENT, email_consent(77, "subscribed", ago(shop, days=5)))
    shop.told("orders/create", shopify_order())

    assert set(shop.consents("shopify-77")) == {("email", "letters")}
    assert shop.rows("SELECT interests FROM event_item") == [["Lumina"]]
