"""Clicks: the links of messages written so that they lead through us, and what a click tells.

* `writing`  writes the links of one run's messages: UTM parameters, and, where clicks are counted, links of our own
* `tracked`  the rows behind those links: what leads where
* `taking`   a click: where to, and the fact that it happened; `bots` says whether it was hardly a person's
* `report`   the clicks of a run by link

A click changes nothing about consent, and a link leads only where it led when its message left.
"""

from dispatcher.clicks.bots import Look
from dispatcher.clicks.report import clicks_of
from dispatcher.clicks.taking import Click, find, note
from dispatcher.clicks.tracked import keep, prepare, seal
from dispatcher.clicks.writing import LinkWriter, writer_for

__all__ = ["Click", "LinkWriter", "Look", "clicks_of", "find", "keep", "note", "prepare", "seal", "writer_for"]
