"""What a soak did to a study, in one sentence, from ``results/reliability/soak.json``."""

import json
from pathlib import Path

from dyt.studies.showing.marked import Part


def line(report: dict) -> str:
    """The sentence of a report that ``scripts/maintain/soak.py`` wrote."""
    kinds = ", ".join(f"{count} x {kind}" for kind, count in report["faults"].items())
    end = (
        "nothing was lost: every row of `runs.csv` and of every `metrics.jsonl` equal to those of an undisturbed study"
    )
    if not report["nothing_lost"]:
        end = f"{len(report['differing'])} differences from an undisturbed study, in `results/reliability/soak.json`"
    return (
        f"{report['total']} faults ({kinds}) in {report['rounds']} rounds of a study of 6 runs, started "
        f"{report['starts']} times, {report['checkpoints_passed_over']} damaged checkpoints passed over; {end} "
        f"({report['runs_compared']} runs, {report['rows_compared']:,} rows; {report['minutes']:g} minutes, "
        f"{report['provenance']['hardware']})."
    )


def text(results: Path) -> str:
    return line(json.loads((results / "reliability" / "soak.json").read_text()))


PART = Part("soak", "python scripts/maintain/soak.py", text)
