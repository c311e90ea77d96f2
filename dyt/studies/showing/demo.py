"""The demo's table and what it teaches, from ``results/demo/rows.json``."""

import json
from pathlib import Path

from dyt.studies.showing.marked import Part

BUSY = 3.0  # load average of a quarter of an hour; the demo itself makes two


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def table(rows: list[dict]) -> str:
    """The comparison as Markdown; a missing number shows as missing."""
    lines = [
        "| model | norm | parameters | val loss, final | best | accuracy, final | ms a step | steps | status |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        cells = (
            row["model"],
            row["norm"] + (f" ({_start(row)})" if row["alpha0"] is not None else ""),
            f"{row['parameters']:,}",
            _number(row["final"]),
            _number(row["best"]),
            _number(row["top1"]),
            _number(row["step_ms"], 1),
            str(row["step"]),
            row["status"],
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _start(row: dict) -> str:
    return f"alpha0 {row['alpha0']:g}, gamma0 {row['gamma0']:g}"


def lesson(rows: list[dict]) -> str:
    """What each family's two DyT rows teach, in one line."""
    told, better = [], []
    for model in dict.fromkeys(row["model"] for row in rows):
        at = {row["norm"]: row for row in rows if row["model"] == model}
        one, other = at.get("dyt"), at.get("dyt_unit_gain")
        if not (one and other) or one["final"] is None or other["final"] is None:
            continue
        told.append(f"{one['final']:.2f} to {other['final']:.2f} in {model}")
        better.append(other["final"] < one["final"])
    if not told:
        return ""
    end = "so try another start before you judge DyT" if all(better) else "here the other start did not always help"
    return (
        f"What the two DyT rows teach: only the start differs, alpha0 and gamma0, and the loss goes from "
        f"{' and from '.join(told)}; {end}."
    )


def text(results: Path) -> str:
    """The table, the lesson, and what the numbers are worth."""
    about = json.loads((results / "demo" / "rows.json").read_text())
    made = about["provenance"]
    busy = " Other work ran on this machine: the times mean little." if about["load_average"] > BUSY else ""
    return (
        f"{table(about['rows'])}\n\n{lesson(about['rows'])}\n\nOne seed and short runs: a demonstration, not evidence. "
        "Short budgets favour LayerNorm, for DyT as published is slower to start. Accuracy is of held-out digits, "
        "or of the next byte. A text model without context cannot go below the unigram entropy, "
        f"{about['unigram_entropy']:.3f} nats. "
        f"{made['hardware']}, {made['threads']} thread(s), torch {made['versions']['torch']}, "
        f"Python {made['python']}.{busy}\n"
    )


PART = Part("demo", "python scripts/demo.py --readme", text, "demo/table.md")
