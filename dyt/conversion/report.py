"""What became of every norm of a converted model, as a table to read and as rows to use."""

import re
from collections import Counter
from dataclasses import replace

from torch import nn

from dyt.conversion.plan import Entry
from dyt.conversion.recognise import NOTHING
from dyt.conversion.swap import ORIGINAL, RECORD


class Report(list):
    """A list of `Entry`; ``print`` gives a table, in which blocks alike are one line."""

    @property
    def left(self) -> list[Entry]:
        """What normalizes and was left, though nobody asked for that."""
        return [e for e in self if e.fate == "keep" and not e.asked and e.kind != "dyt" and e.reason != NOTHING]

    def summary(self) -> str:
        """One line: ``replaced 12 norms (attn 6, mlp 6); left 24 as they were: 24 GroupNorm``."""
        done = [e for e in self if e.fate in ("replaced", "replace")]
        sites = ", ".join(f"{s} {n}" for s, n in Counter(e.site for e in done).items())
        word = "replaced" if all(e.fate == "replaced" for e in done) and done else "would replace"
        text = f"{word} {len(done)} norm{'s' * (len(done) != 1)}" + (f" ({sites})" if sites else "")
        for label, kept in (
            ("left as they were", self.left),
            ("left as asked", [e for e in self if e.asked]),
        ):
            if kept:
                kinds = ", ".join(f"{n} {c}" for c, n in Counter(e.cls for e in kept).items())
                text += f"; {label}: {kinds}"
        return text

    def __str__(self) -> str:
        groups: dict[tuple, list[Entry]] = {}
        for e in self:
            fate = e.became if e.fate == "replaced" else f"{e.fate}: {e.reason}" if e.reason else e.fate
            groups.setdefault((re.sub(r"(?<![^.])\d+(?![^.])", "*", e.name), e.cls, e.site, fate), []).append(e)
        rows = [
            (es[0].name if len(es) == 1 else f"{len(es)} x {name}", cls, site, fate)
            for (name, cls, site, fate), es in groups.items()
        ]
        widths = [max((len(r[i]) for r in rows), default=0) for i in range(3)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, [*widths, 0], strict=True)).rstrip() for r in rows]
        return "\n".join([*lines, self.summary()])


def conversion_report(model: nn.Module) -> Report:
    """What `convert` did to each norm of `model`, and what it left and why.

    Raises:
        ValueError: nothing in the model was converted.
    """
    rows: dict[str, Entry] = {}
    modules = dict(model.named_modules())
    for prefix, module in modules.items():
        for entry in vars(module).get(RECORD, ()):
            name = f"{prefix}.{entry.name}".lstrip(".")
            names = tuple(f"{prefix}.{n}".lstrip(".") for n in entry.names)
            there = modules.get(name)
            if entry.fate == "replaced" and ORIGINAL not in vars(there or entry):
                continue  # a part was reverted since
            if entry.fate == "replaced" or rows.get(name, entry).fate != "replaced":
                rows[name] = replace(entry, name=name, names=names, module=there)
    if not rows:
        raise ValueError(
            f"conversion_report: {type(model).__name__} was not converted; dyt.plan(model) says what would be"
        )
    place = {name: i for i, name in enumerate(modules)}
    return Report(sorted(rows.values(), key=lambda e: place.get(e.name, -1)))
