from __future__ import annotations

import pytest

from dispatcher.errors import Refused
from dispatcher.runtime import check_broker, check_database


@pytest.mark.parametrize(
    "address",
    ["postgresql://shop:geheim@127.0.0.1:1/ledger", "postgresql://shop@127.0.0.1:1/ledger?password=geheim",
     "postgresql://shop:geheim@127.0.0.1:port/ledger", "mysql://shop:geheim@127.0.0.1/ledger", "geheim",
     "postgresql://shop:geheim@127.0.0.1:1/ledger?sslmode=odd"],
)  # fmt: skip
def test_a_database_that_cannot_be_used_is_one_line_with_the_setting_and_no_password(address: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_database(address)

    assert "DISPATCHER_DATABASE_URL" in str(refusal.value)
    assert "geheim" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "address",
    ["redis://shop:geheim@127.0.0.1:1/0", "redis://127.0.0.1:1/0?password=geheim", "unix:///no/such/socket?db=0",
     "amqp://shop:geheim@127.0.0.1/", "redis://shop:geheim@127.0.0.1:port/0", "geheim"],
)  # fmt: skip
def test_a_broker_that_cannot_be_used_is_one_line_with_the_setting_and_no_password(address: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_broker(address)

    assert "DISPATCHER_BROKER_URL" in str(refusal.value)
    assert "geheim" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
