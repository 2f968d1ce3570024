"""Contacts: the people we know of.  Being one says nothing about permission."""

from dispatcher.contacts.finding import Holding, find_contact, hold_contact, personal_of
from dispatcher.contacts.saving import Particulars, Saved, ensure_contacts, save_contact, save_contacts
from dispatcher.personal import Personal, open_personal

__all__ = [
    "Holding",
    "Particulars",
    "Personal",
    "Saved",
    "ensure_contacts",
    "find_contact",
    "hold_contact",
    "open_personal",
    "personal_of",
    "save_contact",
    "save_contacts",
]
