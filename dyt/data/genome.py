"""Chromosomes as windows of bases, to predict bases: a chromosome after the other, an unknown base between them."""

import numpy as np

from dyt.data import made_dna
from dyt.data.bases import SIZE, UNKNOWN, records
from dyt.data.cache import kept
from dyt.data.chromosomes import Places, places
from dyt.data.sources import cache_dir
from dyt.data.spec import Spec
from dyt.data.text import Tokens


class GenomeData(Tokens):
    """The last share of the bases is for the test, as much before it for validation, the rest for training.

    Raises:
        ValueError, OSError: no bases, less of them than two windows, or a letter that is no base.
    """

    def __init__(self, data: dict, context: int):  # of Tokens it takes the windows; bases have no tokenizer
        self.data, self.context = data, context
        found, share = places(data), data["val_fraction"]
        if not 0 < share < 0.5:
            raise ValueError(f"data.val_fraction={share}: must be above 0 and below 0.5: as much is left for the test")
        folder, _ = kept(cache_dir(data) / "bases", (found.sha256, "v1"), lambda folder: _write(found, folder))
        whole = np.memmap(folder / "bases.bin", dtype=np.uint8, mode="r")
        held = int(len(whole) * share)
        train = whole[: len(whole) - 2 * held]
        self.tokens = {
            "train": train[: data["train_tokens"] or len(train)],
            "val": whole[len(train) :][: data["eval_tokens"] or held],
            "test": whole[len(train) + held :][: data["eval_tokens"] or held],
        }
        for split, bases in self.tokens.items():
            if len(bases) < 2 * context:
                raise ValueError(
                    f"data={data['name']}: its {split} part has {len(bases)} bases, less than two windows of "
                    f"model.context={context}; use a longer sequence or a smaller context"
                )
            if bases.min() >= UNKNOWN:
                raise ValueError(f"data={data['name']}: its {split} part has no known base, N alone")
        self.spec = Spec("genome", found.sha256, {s: len(t) for s, t in self.tokens.items()}, vocab_size=SIZE)
        self.samples, self.unit_per_sample = (len(self.tokens["train"]) - context) // context, context


def _write(found: Places, folder) -> dict:
    count = 0
    with open(folder / "bases.bin", "wb") as out:
        if not found.files:
            out.write(made_dna.chromosome().tobytes())
            count = 1
        for _, sequence in (r for file in found.files for r in records(file)):
            out.write((bytes([UNKNOWN]) if count else b"") + sequence)
            count += 1
    if not count:
        raise ValueError(f"data.path={found.files[0]}: holds no sequence")
    return {"records": count}
