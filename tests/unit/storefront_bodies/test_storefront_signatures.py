"""Who signed a body: the published signature, lists of secrets, and the one thing that is unsigned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from storefronts import sign

from dispatcher.storefronts.signatures import is_ping, secrets_of, signed


def test_the_published_signature_of_shopify_is_right_and_a_spoilt_one_is_not(shared: Path) -> None:
    vector = json.loads((shared / "data/webhooks/signature-vectors/shopify_webhook.json").read_bytes())
    body, signature = vector["body"].encode(), vector["headers"]["X-Shopify-Hmac-Sha256"]

    assert signed([vector["secret"]], signature, body)
    assert signed(["a-new-secret", vector["secret"]], signature, body)
    assert not signed([vector["secret"]], signature, body + b" ")
    assert not signed([vector["secret"]], signature.lower(), body)
    assert not signed(["a-new-secret"], signature, body)
    assert not signed([], signature, body)


def test_a_list_of_secrets_is_one_only_if_none_could_be_guessed() -> None:
    assert secrets_of(" new-secret , old-secret ") == ("new-secret", "old-secret", "new-secret , old-secret")
    assert secrets_of("ab,Zk9[]{}-generated-by-woocommerce") == ("ab,Zk9[]{}-generated-by-woocommerce",)
    assert secrets_of("test_secret_key") == ("test_secret_key",)
    assert secrets_of("  ") == ()


def test_woocommerces_secret_may_be_given_as_it_stores_it() -> None:
    assert signed(["a&amp;b&lt;c&#039;d"], sign("a&b<c'd", b"{}"), b"{}")
    assert signed(["a&b<c'd"], sign("a&b<c'd", b"{}"), b"{}")
    assert not signed(["a&b<c'd"], sign("a&amp;b&lt;c&#039;d", b"{}"), b"{}")


@pytest.mark.parametrize("body", [b"webhook_id=", b"webhook_id=1&x=2", b"", b"{}", b"x webhook_id=1"])
def test_a_ping_says_the_webhooks_number_and_no_more(body: bytes) -> None:
    assert is_ping(b"webhook_id=17")
    assert not is_ping(body)
