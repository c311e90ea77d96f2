"""Pieces of a chromosome that code for protein, and pieces that do not, by the annotation that comes with it."""

from pathlib import Path

import numpy as np

from dyt.data.bases import UNKNOWN, complemented, records
from dyt.data.documents import documents

BLOCK = 20_000  # bases that go whole to one split: pieces of a gene stay together
NAMES = ("coding", "noncoding")


def regions(file: Path) -> list[tuple[int, int, bool]]:
    """(first base from 0, end, whether it is on the other strand) of each CDS of a GFF3 file, in order, each once."""
    found = set()
    for _, line in documents(file, "text", "", None):
        parts = line.split("\t")
        if len(parts) > 6 and parts[2] == "CDS":
            found.add((int(parts[3]) - 1, int(parts[4]), parts[6] == "-"))
    return sorted(found)


def pieces(genome: Path, annotation: Path, length: int, most: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sequences (N, length) uint8, class (N,) by `NAMES`, place in the chromosome (N,)), both classes equally often.

    Coding pieces lie whole in a CDS and are read on its strand, in any frame; the others touch none, and are read on
    the strands of the coding ones in turn. No two of a class overlap, none has an unknown base. At most `most` of a
    class, evenly chosen.

    Raises:
        ValueError: there are none of a class.
    """
    (_, sequence), *_ = records(genome)
    whole = np.frombuffer(sequence, dtype=np.uint8)
    coding = regions(annotation)
    touched = np.zeros(len(whole), dtype=bool)
    starts, strands, end = [], [], 0
    for first, last, other in coding:
        touched[first:last] = True
        for at in range(max(first, end), last - length + 1, length):
            starts.append(at)
            strands.append(other)
            end = at + length
    free = [at for at in range(0, len(whole) - length + 1, length) if not touched[at : at + length].any()]
    free = [at for at in free if (whole[at : at + length] != UNKNOWN).all()]
    kept = [i for i, at in enumerate(starts) if (whole[at : at + length] != UNKNOWN).all()]
    starts, strands = [starts[i] for i in kept], [strands[i] for i in kept]
    count = min(len(starts), len(free), most or len(whole))
    if not count:
        raise ValueError(
            f"data.length={length}: no piece of so many bases is coding, or none is not; type a smaller one"
        )
    chosen = [np.linspace(0, len(of) - 1, count).astype(int) for of in (starts, free)]
    places = np.array([starts[i] for i in chosen[0]] + [free[i] for i in chosen[1]])
    turned = [strands[i] for i in chosen[0]] * 2
    rows = [whole[at : at + length] for at in places]
    rows = [complemented(row) if turn else row for row, turn in zip(rows, turned, strict=True)]
    return np.stack(rows), np.repeat([0, 1], count), places
