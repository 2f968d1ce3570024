"""Replies: what people text to us.

STOP, HELP and START in any language are heard at once, a free text that asks to stop is heard and put up for review;
an answer, if one is due, is a transactional SMS of the ledger like every other.

* `reading`   what a text means: pure, the words in `words.yaml`
* `taking`    what follows from it, under the locks
* `answers`   the one text that may go back
* `reviews`   what a human says of a free text
"""

from dispatcher.replies.reading import Reading, read_text
from dispatcher.replies.taking import take

__all__ = ["Reading", "read_text", "take"]
