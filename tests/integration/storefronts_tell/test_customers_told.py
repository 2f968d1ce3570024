"""Customers of storefronts become contacts, are corrected, and are made one."""

from __future__ import annotations

import pytest
from storefronts import MAIL_CONSENT, email_consent, shopify_checkout, shopify_customer, shopify_merge, shopify_order
from telling import Shop, ago

from dispatcher import rights
from dispatcher.contacts import Particulars, save_contact


def test_an_older_record_overwrites_nothing_and_fills_what_is_blank(shop: Shop) -> None:
    shop.told("customers/update", shopify_customer(first_name="Anna", phone=None, updated_at=ago(shop, days=1)))
    shop.told(
        "customers/update", shopify_customer(first_name="Ana", email="old@people.example", updated_at=ago(shop, days=2))
    )

    assert (shop.personal("shopify-77").first_name, shop.personal("shopify-77").phone) == ("Anna", "+40712345678")
    assert shop.personal("shopify-77").email == "ana@people.example"
    shop.told("customers/update", shopify_customer(email="new@people.example", updated_at=ago(shop, hours=1)))
    assert shop.personal("shopify-77").email == "new@people.example"


def test_an_order_says_of_its_customer_only_what_was_not_known(shop: Shop) -> None:
    shop.told("customers/update", shopify_customer(first_name="Anna"))
    shop.told("orders/create", shopify_order(customer={"id": 77, "email": "other@people.example", "first_name": "A."}))

    assert (shop.personal("shopify-77").first_name, shop.personal("shopify-77").email) == ("Anna", "ana@people.example")
    assert shop.rows("SELECT locale FROM contact") == ["ro"]


def test_a_guest_who_becomes_a_customer_is_one_contact_that_the_shop_may_correct(shop: Shop) -> None:
    shop.told("checkouts/create", shopify_checkout(customer=None))
    [guest] = shop.rows("SELECT external_id FROM contact")
    assert guest.startswith("email-")
    shop.told("orders/create", shopify_order())
    shop.told("customers/update", shopify_customer(email="new@people.example"))

    assert shop.rows("SELECT external_id FROM contact") == ["shopify-77"]
    assert shop.find(guest) == shop.find("shopify-77") == shop.find("new@people.example")


def test_a_customer_that_shopify_deletes_is_no_erasure(shop: Shop) -> None:
    shop.told("customers/update", shopify_customer())
    shop.told("customers/delete", {"id": 77})
    shop.told("customers/delete", {"id": 78})

    assert shop.personal("shopify-77").email == "ana@people.example"
    assert shop.events("customer.deleted") == {"customer-77-deleted": 1}
    assert shop.rows("SELECT count(*) FROM contact") == [1]


@pytest.mark.parametrize(("kept", "gone"), [(1, 2), (2, 1)])
def test_customers_that_shopify_made_one_are_one_contact_by_the_name_of_the_kept(
    shop: Shop, kept: int, gone: int
) -> None:
    for number in (1, 2):
        email = f"c{number}@people.example"
        shop.told("customers/update", shopify_customer(number, email=email, first_name=f"C{number}", phone=None))
        shop.told(MAIL_CONSENT, email_consent(number, "subscribed", ago(shop, days=5), email=email))
        shop.told("orders/create", shopify_order(number, customer={"id": number, "email": email}))
    shop.told("customers/merge", shopify_merge(kept, gone))
    shop.told("customers/merge", shopify_merge(kept, gone))

    one = shop.find(f"shopify-{kept}")
    assert shop.find(f"shopify-{gone}") == one
    assert shop.rows("SELECT external_id FROM contact WHERE merged_into IS NULL") == [f"shopify-{kept}"]
    person = shop.personal(f"shopify-{gone}")
    assert (person.email, person.first_name) == (f"c{kept}@people.example", f"C{kept}")
    assert shop.consents(f"shopify-{kept}")[("email", "offers")] == "granted"
    assert shop.rows("SELECT DISTINCT contact_id FROM event") == [one]
    assert shop.counts()[("customers/merge", "taken")] == shop.counts()[("customers/merge", "again")] == 1
    # What is told of either from now on finds the one, and the kept one's record overwrites.
    shop.told("customers/update", shopify_customer(gone, email="late@people.example", updated_at=ago(shop, hours=2)))
    shop.told("customers/update", shopify_customer(kept, email="new@people.example", updated_at=ago(shop, hours=1)))
    assert shop.personal(f"shopify-{gone}").email == "new@people.example"
    shop.told("customers/redact", {"customer": {"id": kept}, "orders_to_redact": []})
    rights.finish_erasures(shop.database, shop.key_ring)
    assert shop.rows("SELECT count(*) FROM contact WHERE sealed IS NOT NULL") == [0]


def test_a_merge_that_comes_before_either_customer_holds_and_one_with_somebody_erased_does_not(shop: Shop) -> None:
    shop.told("customers/merge", shopify_merge(1, 2))
    shop.told("customers/update", shopify_customer(2, email="two@people.example", first_name="Two"))
    shop.told("customers/update", shopify_customer(1, email="one@people.example", first_name="One"))
    assert shop.find("shopify-1") == shop.find("shopify-2")
    assert (shop.personal("shopify-2").email, shop.personal("shopify-2").first_name) == ("one@people.example", "One")

    shop.told("customers/update", shopify_customer(3, email="three@people.example"))
    shop.told("customers/redact", {"customer": {"id": 4}, "orders_to_redact": []})
    rights.finish_erasures(shop.database, shop.key_ring)
    shop.told("customers/merge", shopify_merge(4, 3))
    assert shop.counts()[("customers/merge", "erased")] == 1
    assert shop.find("shopify-3") != shop.find("shopify-4")


def test_of_two_that_become_one_a_withdrawal_holds_and_an_own_id_stays_first(shop: Shop) -> None:
    with shop.database.begin() as connection:
        own = Particulars("own-9", email="ana@people.example", first_name="Anna")
        save_contact(connection, shop.key_ring, own)
    shop.told("customers/update", shopify_customer(1, email="ana@people.example"))
    shop.told("customers/update", shopify_customer(2, email="other@people.example", first_name="Other"))
    shop.told(MAIL_CONSENT, email_consent(1, "subscribed", ago(shop, days=1)))
    shop.told(MAIL_CONSENT, email_consent(2, "unsubscribed", ago(shop, days=5), email="other@people.example"))
    shop.told("customers/merge", shopify_merge(2, 1))

    assert shop.rows("SELECT external_id FROM contact WHERE merged_into IS NULL") == ["own-9"]
    assert (shop.personal("shopify-2").email, shop.personal("shopify-2").first_name) == ("ana@people.example", "Anna")
    assert shop.consents("own-9")[("email", "offers")] == "withdrawn"
