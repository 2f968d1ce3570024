"""The preference centre: what somebody wants to hear, when, in which language, and what we know of them.

Its link proves that whoever holds it was sent a message at one address, and no more: a mail can be forwarded.  So it
shows nothing of the person but what their messages show, lets them leave everything at once, and asks by a message
before it opens a channel or a topic that needs proof.  What we know of them opens by a link of its own (`data_links`).
"""

#: Who the audit and the evidence say it was.
ACTOR = "preference centre"
