"""DNA made by a seeded generator, which no creature has: what runs where no package with chromosomes is installed.

Genes of codons, some much more frequent than others and none a stop, on both strands, between stretches of single
letters of the same frequencies. Which place of its codon a base has must be inferred from more than five bases.
"""

import functools

import numpy as np

from dyt.data.bases import complemented

SEED, VERSION = 2503, 1
LENGTH = 400_000  # [bases] of the chromosome
STOPS = ("TAA", "TAG", "TGA")


class Dice:
    """Draws by one uniform generator alone, whose stream NumPy promises to keep."""

    def __init__(self, *parts: int):
        self.generator = np.random.Generator(np.random.PCG64([SEED, VERSION, *parts]))

    def choose(self, weights: np.ndarray, count: int) -> np.ndarray:
        """Numbers of `weights`, each as often as it weighs."""
        ends = np.cumsum(weights / weights.sum())
        return np.minimum(np.searchsorted(ends, self.generator.random(count)), len(weights) - 1)


@functools.cache
def codons() -> tuple[np.ndarray, np.ndarray]:
    """(letters (64, 3), frequency (64,)) of the made-up code; stop codons never occur."""
    table = np.stack([np.arange(64) // 16, np.arange(64) // 4 % 4, np.arange(64) % 4], axis=1)
    weights = Dice(0).generator.random(64) ** 6
    stops = ["".join("ACGT"[i] for i in row) in STOPS for row in table]
    return table, np.where(stops, 0.0, weights)


def gene(dice: Dice, count: int) -> np.ndarray:
    """`count` codons in their reading direction, (3 count,) uint8."""
    table, weights = codons()
    return table[dice.choose(weights, count)].reshape(-1).astype(np.uint8)


def between(dice: Dice, count: int) -> np.ndarray:
    """`count` single letters, as frequent as in genes of both strands."""
    table, weights = codons()
    share = np.bincount(table.reshape(-1), np.repeat(weights, 3), minlength=4)
    return dice.choose(share + share[::-1], count).astype(np.uint8)


def chromosome() -> np.ndarray:
    """(LENGTH,) uint8: a gene of 300 to 1,500 bases, as much between, and so on."""
    dice, parts, size = Dice(1), [], 0
    while size < LENGTH:
        length, space, strand = dice.generator.random(3)
        made = gene(dice, 100 + int(400 * length))
        parts += [made if strand < 0.5 else complemented(made), between(dice, 300 + int(1200 * space))]
        size += len(parts[-2]) + len(parts[-1])
    return np.concatenate(parts)[:LENGTH]


def pieces(length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(sequences (2 count, length) uint8, whether each is of a gene (2 count,)): any frame, both strands."""
    dice = Dice(2, length)
    rows = []
    for _ in range(count):
        frame, strand = (dice.generator.random(2) * (3, 2)).astype(int)
        piece = gene(dice, length // 3 + 2)[frame : frame + length]
        rows += [complemented(piece) if strand else piece, between(dice, length)]
    return np.stack(rows), np.arange(2 * count) % 2 == 0
