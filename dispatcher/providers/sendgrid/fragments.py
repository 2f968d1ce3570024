"""Many nearly equal texts as one skeleton and each text's own fragments.

Every mail is rendered whole, by the same code as for any other provider; only then is what they have in common found:
lines, then words, that stand exactly once in each of the texts, in the same order.  What lies between two of them is
the same everywhere, or a hole.  So skeleton and fragments are the texts by construction, whatever the template does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

#: A part that all texts share is a `str`; a hole is a tuple, with the fragment of each text.
Part = str | tuple[str, ...]

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_WORDS = re.compile(r"<[^<>]*>|\s+|[^\s<]+|<")
_GRAINS = (_LINES, _WORDS)
#: A hole costs every person its key and JSON's quotes: shorter than this, what two holes have between them joins them.
_SHORTEST_SHARED = 24


def parts_of(texts: Sequence[str], *, most_holes: int) -> list[Part]:
    """Return parts that joined are the texts: with fragment `i` in each hole they are `texts[i]`, for every `i`."""
    parts = _merged(_split(texts, _GRAINS), _SHORTEST_SHARED)
    while sum(isinstance(part, tuple) for part in parts) > most_holes:
        shared = sorted(len(part) for part in _between_holes(parts))
        parts = _merged(parts, shared[len(shared) // 2] + 1)
    return parts


def _split(texts: Sequence[str], grains: Sequence[re.Pattern[str]]) -> list[Part]:
    if all(text == texts[0] for text in texts):
        return [texts[0]] if texts[0] else []
    head = _common_beginning(texts)
    texts = [text[len(head) :] for text in texts]
    tail = _common_beginning([text[::-1] for text in texts])[::-1]
    texts = [text[: len(text) - len(tail)] for text in texts]
    middle: list[Part] = _by_anchors(texts, grains) if grains else [tuple(texts)]
    return [*([head] if head else []), *middle, *([tail] if tail else [])]


def _common_beginning(texts: Sequence[str]) -> str:
    """Return what all texts begin with: what the first and the last of them in the alphabet begin with."""
    first, last = min(texts), max(texts)
    sure, doubtful = 0, len(first)
    while sure < doubtful:
        middle = (sure + doubtful + 1) // 2
        if last.startswith(first[:middle]):
            sure = middle
        else:
            doubtful = middle - 1
    return first[:sure]


def _by_anchors(texts: Sequence[str], grains: Sequence[re.Pattern[str]]) -> list[Part]:
    """Split at the pieces that stand once in every text, in one order; what is between them is split further."""
    pieces = [grains[0].findall(text) for text in texts]
    anchors = _anchors(pieces)
    if not anchors:
        return _split(texts, grains[1:])
    parts: list[Part] = []
    begins = [0] * len(texts)
    for ends in [*anchors, [len(one) for one in pieces]]:
        between = ["".join(one[b:e]) for one, b, e in zip(pieces, begins, ends, strict=True)]
        parts += _split(between, grains)
        if ends[0] < len(pieces[0]):
            parts.append(pieces[0][ends[0]])
        begins = [end + 1 for end in ends]
    return parts


def _anchors(pieces: Sequence[list[str]]) -> list[list[int]]:
    """Return where the pieces stand that every list has exactly once: a row of positions for each, all rising."""
    once: list[dict[str, int]] = []
    for one in pieces:
        places: dict[str, int] = {}
        twice: set[str] = set()
        for place, piece in enumerate(one):
            if piece in places:
                twice.add(piece)
            places[piece] = place
        once.append({piece: place for piece, place in places.items() if piece not in twice})
    rows: list[list[int]] = []
    last = [-1] * len(pieces)
    for piece in once[0]:  # in the order of the first text
        row = [places.get(piece, -1) for places in once]
        if all(place > before for place, before in zip(row, last, strict=True)):
            rows.append(row)
            last = row
    return rows


def _between_holes(parts: Sequence[Part]) -> Iterator[str]:
    holes = [place for place, part in enumerate(parts) if isinstance(part, tuple)]
    for place in range(holes[0] + 1, holes[-1]):
        part = parts[place]
        if isinstance(part, str):
            yield part


def _merged(parts: Sequence[Part], shortest: int) -> list[Part]:
    """Return the parts with neighbours joined, and each hole with the next if they share less than `shortest`."""
    merged: list[Part] = []
    for part in parts:
        if merged and isinstance(part, str) and isinstance(merged[-1], str):
            merged[-1] += part
        elif merged and isinstance(part, tuple) and isinstance(merged[-1], tuple):
            merged[-1] = tuple(a + b for a, b in zip(merged[-1], part, strict=True))
        elif (
            len(merged) > 1
            and isinstance(part, tuple)
            and isinstance(shared := merged[-1], str)
            and isinstance(hole := merged[-2], tuple)
            and len(shared) < shortest
        ):
            merged[-2:] = [tuple(a + shared + b for a, b in zip(hole, part, strict=True))]
        else:
            merged.append(part)
    return merged
