"""Letters of DNA as numbers, and files of them: FASTA, or a sequence a line; packed ones too."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dyt.data.documents import Unreadable, documents

LETTERS = "ACGTN"  # 0 to 4; N stands for each letter that means several bases
UNKNOWN, MASK, SIZE = 4, 5, 6
SEVERAL = "NRYSWKMBDHV"  # IUPAC's
TABLE = bytearray([255] * 256)
for _number, _letter in [*enumerate("ACGT"), *((UNKNOWN, letter) for letter in SEVERAL)]:
    TABLE[ord(_letter)] = TABLE[ord(_letter.lower())] = _number


def coded(text: str, place: str) -> bytes:
    """Letters as bytes 0 to 4, upper and lower case alike.

    Raises:
        ValueError: a letter that is no base; the line names place, position and letter.
    """
    found = text.encode("latin-1", "replace").translate(bytes(TABLE))
    if (at := found.find(255)) >= 0:
        raise ValueError(
            f"data.path: {place}, letter {at + 1}: {text[at]!r} is no base; A, C, G, T and N are, and IUPAC's "
            f"{SEVERAL[1:]}, which are taken for N"
        )
    return found


def records(file: Path) -> Iterator[tuple[str, bytes]]:
    """(place, letters as `coded`) of each sequence: of a FASTA file its records, else each line.

    Raises:
        ValueError: it cannot be read, or holds a letter that is no base.
    """
    fasta, first, parts = False, "", []
    try:
        for place, line in documents(file, "text", "", None):
            line = line.strip()
            if line.startswith(">"):
                if parts:
                    yield first, b"".join(parts)
                fasta, first, parts = True, place, []
            elif line and fasta:
                parts.append(coded(line, place))
            elif line:
                yield place, coded(line, place)
    except Unreadable as error:
        raise ValueError(f"data.path: {error}") from error
    if parts:
        yield first, b"".join(parts)


def complemented(sequence: np.ndarray) -> np.ndarray:
    """The other strand, read in its own direction: A for T, C for G, from the end on; N stays N."""
    return np.where(sequence < UNKNOWN, 3 - sequence.astype(np.int16), sequence).astype(sequence.dtype)[..., ::-1]
