"""What of a contact is personal: encrypted at rest under a key of the contact's own, so that it can be erased."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dispatcher.keys import DataKey, KeyRing


@dataclass(frozen=True, slots=True)
class Personal:
    """The personal fields; None: not known.  `sealed` holds those that are known, under these names."""

    email: str | None = None  #: in normal form
    phone: str | None = None  #: E.164
    first_name: str | None = None
    last_name: str | None = None
    postal_code: str | None = None

    def seal(self, data_key: DataKey) -> bytes | None:
        """Return what is stored; None if nothing is known."""
        known = {name: value for name in PERSONAL_FIELDS if (value := getattr(self, name)) is not None}
        return data_key.seal(known) if known else None


PERSONAL_FIELDS = tuple(field.name for field in fields(Personal))


def open_personal(key_ring: KeyRing, data_key: bytes | None, sealed: bytes | None) -> Personal:
    """Return the personal fields of a row of `contact`; all None if there are none, or they are erased."""
    if data_key is None or sealed is None:
        return Personal()
    return Personal(**key_ring.open_data_key(data_key).open(sealed))
