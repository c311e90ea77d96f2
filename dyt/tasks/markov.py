"""A Markov chain of bases: what a DNA model is held against, a table of how often each base follows five others."""

from collections.abc import Iterator

import numpy as np

BASES = 4
BLOCK = 1 << 22  # bases that are looked at together, for memory
STRENGTH = 16.0  # bases that the shorter context's estimate counts as


class Chain:
    """Of `order`, fitted on ids 0 to 3; others are unknown. The shorter context smooths one that is seldom seen."""

    def __init__(self, tokens: np.ndarray, order: int = 5):
        self.order = order
        shares = np.full((1, BASES), 1 / BASES)
        for length in range(order + 1):
            seen = np.zeros(BASES ** (length + 1), dtype=np.int64)
            for places, following, known in _blocks(tokens, length):
                seen += np.bincount(places[known] * BASES + following[known], minlength=len(seen))
            seen = seen.reshape(-1, BASES)
            # The shorter context is the later letters, which are the lower digits of a place.
            shorter = np.tile(shares, (BASES, 1)) if length else shares
            shares = (seen + STRENGTH * shorter) / (seen.sum(axis=1, keepdims=True) + STRENGTH)
        self.shares = shares  # (4^order, 4)

    def bits(self, tokens: np.ndarray) -> float:
        """Mean bits per known base after the first `order`, each given those before it in the whole of `tokens`.

        A base after an unknown one is told by the mean over contexts, as if those were unknown.
        """
        anywhere, total, count = self.shares.mean(axis=0), 0.0, 0
        for places, following, known in _blocks(tokens, self.order):
            chance = np.where(known, self.shares[places, np.minimum(following, BASES - 1)], anywhere[following % BASES])
            total -= np.log2(chance[following < BASES]).sum()
            count += int((following < BASES).sum())
        return float(total / max(1, count))  # a plain number: it goes into checkpoints


def _blocks(tokens: np.ndarray, length: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each base that has `length` letters before it: their number, the base, and whether they and it are known."""
    for start in range(0, len(tokens) - length, BLOCK):
        part = np.asarray(tokens[start : start + BLOCK + length]).astype(np.int64)
        size = len(part) - length
        following, places = part[length:], np.zeros(size, dtype=np.int64)
        known = following < BASES
        for i in range(length):
            letters = part[i : i + size]
            places = places * BASES + np.minimum(letters, BASES - 1)
            known = known & (letters < BASES)
        yield places, following, known
