"""Texts that say the same: equal but for case and spacing, or alike in most runs of three words.

Shape letters: P permutations, S shingles of a text.
"""

import re
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

SHINGLE = 3
"""Words of a run. Longer runs miss a changed word, shorter ones find every text alike."""
BANDS, ROWS = 32, 4
"""Two texts are compared where one band of their MinHashes agrees: at a similarity of 0.8 that is missed once in 10^7
times, at 0.5 once in 8."""

_WORD = re.compile(r"\w+|[^\w\s]")
_rng = np.random.default_rng(0)
_FACTORS_P = _rng.integers(1, 2**63, size=BANDS * ROWS, dtype=np.uint64) | np.uint64(1)
_SHIFTS_P = _rng.integers(0, 2**63, size=BANDS * ROWS, dtype=np.uint64)
_HALF = np.uint64(32)
_MOST_AT_ONCE = 4096
"""Shingles that are hashed at once: an array of a few MB."""

Shingles = NDArray[np.uint64]


def normalised(text: str) -> str:
    """The text without case and spacing."""
    return re.sub(r"\s+", " ", text).strip().casefold()


def shingles(text: str) -> Shingles:
    """Hashes of the runs of three words, each once, sorted; of a shorter text the one run that it is."""
    words = _WORD.findall(text.casefold())
    runs = {" ".join(words[place : place + SHINGLE]) for place in range(max(1, len(words) - SHINGLE + 1))}
    return np.array(sorted(zlib.crc32(run.encode("utf-8", "surrogatepass")) for run in runs), dtype=np.uint64)


def similarity(one_S: Shingles, other_S: Shingles) -> float:
    """Jaccard similarity of two sets of shingles, 0..1."""
    both = len(np.intersect1d(one_S, other_S, assume_unique=False))
    return both / (len(np.union1d(one_S, other_S)) or 1)


class Likeness:
    """Finds among the texts that it was given one that is like another.

    Args:
        threshold: least similarity of two texts that are alike; 1 finds equal texts alone.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._texts: list[Shingles] = []
        self._bands: dict[tuple[int, bytes], list[int]] = {}

    def knows(self, text: str) -> bool:
        """Whether a text is like one that was added."""
        own_S = shingles(text)
        return self._finds(own_S, _bands_of(own_S))

    def admit(self, text: str) -> bool:
        """Adds a text unless it is like one that was added; whether it was."""
        own_S = shingles(text)
        bands = _bands_of(own_S)
        if self._finds(own_S, bands):
            return False
        for band in bands:
            self._bands.setdefault(band, []).append(len(self._texts))
        self._texts.append(own_S)
        return True

    def _finds(self, own_S: Shingles, bands: Sequence[tuple[int, bytes]]) -> bool:
        near = {place for band in bands for place in self._bands.get(band, ())}
        return any(similarity(own_S, self._texts[place]) >= self.threshold for place in near)


def first_of_their_kind(texts: Iterable[str], threshold: float) -> list[bool]:
    """Which texts are like none that was kept before."""
    known = Likeness(threshold)
    return [known.admit(text) for text in texts]


def like_one_of(texts: Iterable[str], others: Iterable[str], threshold: float) -> list[bool]:
    """Which texts are like one of the others."""
    known = Likeness(threshold)
    for other in others:
        known.admit(other)
    return [known.knows(text) for text in texts]


def _bands_of(own_S: Shingles) -> list[tuple[int, bytes]]:
    smallest_P = np.full(BANDS * ROWS, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(own_S), _MOST_AT_ONCE):
        part_S = own_S[start : start + _MOST_AT_ONCE]
        hashed_PS = (_FACTORS_P[:, None] * part_S + _SHIFTS_P[:, None]) >> _HALF  # multiply-shift; wraps on purpose
        smallest_P = np.minimum(smallest_P, hashed_PS.min(axis=1))
    return [(band, smallest_P[band * ROWS : (band + 1) * ROWS].tobytes()) for band in range(BANDS)]
