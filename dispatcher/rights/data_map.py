"""Where everything is that we hold, and what becomes of it: the one list that export, erasure and docs stand on.

A table that is not in here fails a test: whoever adds one says what of it a person is shown, what is left of it once
they are erased, and for how long it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holding:
    """One table, as far as people are concerned."""

    about: str  #: what it is
    exported_as: tuple[str, ...]  #: sections of the export that show it
    erased: str  #: what an erasure leaves of it
    kept: str  #: for how long, else
    not_exported: str = ""  #: why no section shows it


_FOR_GOOD = "for good"
_WHILE_KNOWN = "until they are erased"


def _nobodys(about: str) -> Holding:
    return Holding(about, (), "untouched", _FOR_GOOD, "it names no person")


DATA_MAP: dict[str, Holding] = {
    "contact": Holding("who they are", ("contact", "places", "merged_contacts"),
                       "the bare row; the data key is destroyed", _WHILE_KNOWN),
    "contact_alias": Holding("the shop's ids of them", ("contact",),
                             "the id, by which it is recognised; its keyed hash if it is an address", _FOR_GOOD),
    "address": Holding("keyed hashes of their addresses", ("addresses",), "the hash, by which it is recognised",
                       _FOR_GOOD),
    "suppression": Holding("what must not be written to, and why", ("suppressions",),
                           "all of it, and one more: erasure", _FOR_GOOD),
    "suppression_lift": Holding("when such a suppression was taken back last", ("suppressions_lifted",),
                                "all of it: nothing personal", _FOR_GOOD),
    "mirrored": Holding("on which of the provider's own lists we put their address", ("provider_lists",),
                        "all of it: nothing personal; the entry there stays", _FOR_GOOD),
    "mirror_change": Holding("that those lists are to follow", ("provider_lists",), "all of it: nothing personal",
                             "until the provider has taken it, in a minute"),
    "mirror_difference": Holding("what the provider's lists had otherwise than ours", (),
                                 "all of it: nothing personal", "90 days", "what came of it is shown: suppressions"),
    "consent": Holding("what they allow", ("consent",), "that it is withdrawn", _FOR_GOOD),
    "consent_event": Holding("how we know", ("consent_evidence",),
                             "the chain; IP address and browser cannot be read any more", _FOR_GOOD),
    "unsubscribe": Holding("what their clicks were answered", ("unsubscribes",), "all of it: nothing personal",
                           _FOR_GOOD),
    "event": Holding("what the shop says they did", ("events",), "that there was one: name, time, the shop's key",
                     "retention: events"),
    "event_item": Holding("what with", ("events",), "nothing", "retention: events"),
    "interest": Holding("what they seem to like", ("interests",), "nothing", _WHILE_KNOWN),
    "message": Holding("what was decided and sent", ("messages",), "the row, without its data and facts",
                       "the row for good; its data: retention: message_data"),
    "attempt": Holding("earlier tries of a message", ("messages",), "all of it: nothing personal", _FOR_GOOD),
    "tracked_message": Holding("where the links that were only theirs led", ("messages",),
                               "that there were such links; where they led is gone", _WHILE_KNOWN),
    "feedback": Holding("what providers reported", ("feedback",), "the row, without the event as it came",
                        "the row for good; the event as it came: retention: feedback"),
    "feedback_inbox": Holding("what providers and storefronts sent, until it is sorted, seconds later; under keys of "
                              "their own", (),
                              "of what is sorted later, nothing readable", "retention: inbox, if it cannot be sorted",
                              "whom it is about is not known before it is sorted"),
    "reply": Holding("what they texted", ("replies",), "how it was read, without the text",
                     "the row for good; the text: retention: replies"),
    "erasure": Holding("that they asked to be erased", ("erasure",), "all of it: the proof", _FOR_GOOD),
    "data_link": Holding("that they asked for the way to their data, and used it", (), "all of it: nothing personal",
                         _FOR_GOOD, "the audit shows it"),
    "audit": Holding("who did what with their data", ("audit",), "all of it: nothing personal", _FOR_GOOD),
    "audience_page": Holding("the numbers of the contacts of a run", (), "the number of the bare row", _FOR_GOOD,
                             "messages show what became of each of them"),
    "flow_exit": Holding("which events end which flow, by a keyed hash", (), "all of it: nothing personal",
                         "retention: flows", "the events are shown"),
    "storefront_customer": Holding("how new a shop's record of them was, by the shop's number", (),
                                   "all of it: nothing personal", _FOR_GOOD, "it says nothing about them"),
    "storefront_request": Holding("that they asked for their data or its erasure through the shop", ("audit",),
                                  "all of it: nothing personal", _FOR_GOOD),
    "storefront_count": _nobodys("how many requests of which topic came"),
    "run": _nobodys("one occurrence of a campaign; each message names its own"),
    "run_link": _nobodys("where the links of a run lead that everybody got"),
    "mirror": _nobodys("when a provider's lists are compared next"),
    "mirror_report": _nobodys("how many differences there were"),
    "mailbox": _nobodys("how far a mailbox of bounces was read"),
    "consent_head": _nobodys("the end of the chain of evidence"),
    "audit_link": _nobodys("the chain over the audit"),
    "audit_head": _nobodys("the end of that chain"),
    "batch": _nobodys("messages on their way together"),
    "lane": _nobodys("how fast a channel may go"),
    "account": _nobodys("how fast a provider may be asked, and whether it answers"),
    "domain_rate": _nobodys("how fast a domain may be written to"),
    "warm_up_day": _nobodys("how many a new sender wrote to on a day"),
    "campaign": _nobodys("the shop's rules"),
    "segment": _nobodys("the shop's rules"),
    "template": _nobodys("the shop's words"),
    "trigger": _nobodys("the shop's rules"),
    "engine": _nobodys("the house itself"),
    "worker": _nobodys("its processes"),
    "figure": _nobodys("how often and how long, for monitoring"),
    "api_key": _nobodys("who of the shop may knock"),
}  # fmt: skip
