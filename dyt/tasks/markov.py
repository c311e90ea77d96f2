"""A Markov chain of bases: what a DNA model is held against, a table of how often each base follows five others."""

import numpy as np

BASES = 4
STRENGTH = 16.0  # bases that the shorter context's estimate counts as


class Chain:
    """Of `order`, fitted on ids 0 to 3; others are unknown. The shorter context smooths one that is seldom seen."""

    def __init__(self, tokens: np.ndarray, order: int = 5):
        self.order = order
        shares = np.full((1, BASES), 1 / BASES)
        for length in range(order + 1):
            places, known = _contexts(tokens, length)
            seen = np.bincount(
                places[known] * BASES + tokens[length:][known].astype(np.int64), minlength=BASES ** (length + 1)
            ).reshape(-1, BASES)
            # The shorter context is the later letters, which are the lower digits of a place.
            shorter = np.tile(shares, (BASES, 1)) if length else shares
            shares = (seen + STRENGTH * shorter) / (seen.sum(axis=1, keepdims=True) + STRENGTH)
        self.shares = shares  # (4^order, 4)

    def bits(self, tokens: np.ndarray) -> float:
        """Mean bits per known base after the first `order`, each given those before it in the whole of `tokens`.

        A base after an unknown one is told by the mean over contexts, as if those were unknown.
        """
        places, known = _contexts(tokens, self.order)
        following = tokens[self.order :].astype(np.int64)
        tells = following < BASES
        anywhere = self.shares.mean(axis=0)
        chance = np.where(known, self.shares[places, np.minimum(following, BASES - 1)], anywhere[following % BASES])
        return float(-np.log2(chance[tells]).mean())


def _contexts(tokens: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each base that has `length` letters before it: their number, and whether they and it are known."""
    size = max(0, len(tokens) - length)
    places, known = np.zeros(size, dtype=np.int64), np.asarray(tokens[length:]) < BASES
    for i in range(length):
        letters = np.asarray(tokens[i : i + size])
        places = places * BASES + np.minimum(letters, BASES - 1)
        known = known & (letters < BASES)
    return places, known
