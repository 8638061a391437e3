"""Near duplicates of texts by MinHash: Jaccard similarity of their runs of three words.

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


def shingles(text: str) -> Shingles:
    """Hashes of the runs of three words, each once, sorted; of a shorter text the one run that it is."""
    words = _WORD.findall(text.casefold())
    runs = {" ".join(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1))}
    return np.array(sorted(zlib.crc32(run.encode("utf-8", "surrogatepass")) for run in runs), dtype=np.uint64)


def similarity(one_S: Shingles, other_S: Shingles) -> float:
    """Jaccard similarity of two sets of shingles, 0..1."""
    both = len(np.intersect1d(one_S, other_S, assume_unique=False))
    return both / (len(np.union1d(one_S, other_S)) or 1)


class NearDuplicateIndex:
    """Texts, and whether another text is a near duplicate of one of them.

    Args:
        threshold: least similarity of near duplicates, 0..1; 1 finds texts with equal runs of words alone.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._texts: list[Shingles] = []
        self._bands: dict[tuple[int, bytes], list[int]] = {}

    def __contains__(self, text: str) -> bool:
        own_S = shingles(text)
        return self._find(own_S, _bands_of(own_S)) is not None

    def find(self, text: str) -> int | None:
        """Number of the most similar text that was added, counted from 0; None if none reaches the threshold."""
        own_S = shingles(text)
        return self._find(own_S, _bands_of(own_S))

    def add(self, text: str) -> bool:
        """Add a text unless it is a near duplicate; return whether it was added."""
        own_S = shingles(text)
        bands = _bands_of(own_S)
        if self._find(own_S, bands) is not None:
            return False
        self._append(own_S, bands)
        return True

    def _append(self, own_S: Shingles, bands: Sequence[tuple[int, bytes]]) -> None:
        for band in bands:
            self._bands.setdefault(band, []).append(len(self._texts))
        self._texts.append(own_S)

    def _find(self, own_S: Shingles, bands: Sequence[tuple[int, bytes]]) -> int | None:
        near = sorted({index for band in bands for index in self._bands.get(band, ())})
        similarities = {index: similarity(own_S, self._texts[index]) for index in near}
        best = max(near, key=similarities.__getitem__, default=None)
        return best if best is not None and similarities[best] >= self.threshold else None


def without_near_duplicates(texts: Iterable[str], threshold: float) -> list[bool]:
    """Whether each text is no near duplicate of an earlier one that was kept."""
    known = NearDuplicateIndex(threshold)
    return [known.add(text) for text in texts]


def near_duplicates_of(texts: Iterable[str], others: Iterable[str], threshold: float) -> list[bool]:
    """Whether each text is a near duplicate of one of the others.

    Args:
        texts: to look at.
        others: to compare them with.
        threshold: Jaccard similarity of their runs of three words, 0..1.
    """
    known = NearDuplicateIndex(threshold)
    for other in others:
        known.add(other)
    return [text in known for text in texts]


def _bands_of(own_S: Shingles) -> list[tuple[int, bytes]]:
    smallest_P = np.full(BANDS * ROWS, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(own_S), _MOST_AT_ONCE):
        part_S = own_S[start : start + _MOST_AT_ONCE]
        hashed_PS = (_FACTORS_P[:, None] * part_S + _SHIFTS_P[:, None]) >> _HALF  # multiply-shift; wraps on purpose
        smallest_P = np.minimum(smallest_P, hashed_PS.min(axis=1))
    return [(band, smallest_P[band * ROWS : (band + 1) * ROWS].tobytes()) for band in range(BANDS)]
