"""Runs in the terminal: status, progress, last and best metrics, and the loss as a sparkline.

python scripts/runs.py                        every run under runs/
python scripts/runs.py dyt optim.lr=2e-3      those that have these words; -word: that have it not
python scripts/runs.py --follow               again every 2 seconds, until Ctrl-C
python scripts/runs.py --compare A B          how two run directories differ, in settings and results
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: list[float], width: int) -> str:
    """The mean of each of `width` stretches, low to high."""
    if not values:
        return ""
    cuts = [len(values) * i // width for i in range(width + 1)] if len(values) > width else range(len(values) + 1)
    means = [sum(values[a:b]) / (b - a) for a, b in zip(cuts, cuts[1:], strict=False)]
    low, high = min(means), max(means)
    return "".join(BARS[round((v - low) / (high - low or 1) * (len(BARS) - 1))] for v in means)


def plain(text) -> str:
    """A name without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def has(run: dict, word: str) -> bool:
    """Whether a run has a word in its name, status or settings; ``key=value`` as train.py takes it, whole."""
    key, equals, value = word.partition("=")
    key = f"{key}.name" if key in ("model", "norm", "data") else key
    if equals and (key in run["config"] or value.lower() == "null"):
        held = run["config"].get(key)
        return value.lower() == "null" if held is None else _plain(held) == _plain(value)
    text = " ".join([run["name"], run["status"], *(f"{k}={v}" for k, v in run["config"].items())])
    return word.lower() in text.lower()


def _plain(value):
    """A setting as YAML reads it, so that 1e-3 and 0.001 are one, and so are lists however spaced."""
    try:
        found = yaml.safe_load(str(value).replace("True", "true").replace("False", "false"))
        return [float(v) for v in found] if isinstance(found, list) else float(found)
    except (yaml.YAMLError, TypeError, ValueError):
        return str(value).lower()


def fits(run: dict, words: list[str]) -> bool:
    return all(not has(run, w[1:]) if w.startswith("-") else has(run, w) for w in words)


def number(value) -> str:
    return "-" if value is None else f"{value:.4g}"


def listed(place: Path, words: list[str], width: int) -> str:
    """The table, as wide as the terminal.

    Raises:
        ValueError: there is no run at all, or none that fits.
    """
    from dyt.report.collect import of_directory, run_directories

    found = [pair for folder in run_directories(place) if (pair := of_directory(folder))] if place.is_dir() else []
    if not found:
        raise ValueError(f"no runs under {place}; train one first, for instance: python train.py norm=dyt")
    chosen = [(run, series) for run, series in found if fits(run, words)]
    if not chosen:
        raise ValueError(f"none of {len(found)} runs has {' '.join(words)}; -word leaves out what has it")
    rows = [("status", "done", "norm", "model", "data", "seed", "train", "val", "best", "loss", "run")]
    for run, series in chosen:
        key = "val/top1" if "val/top1" in run["final"] and run["unit"] == "images" else "val/loss"
        better = max if key == "val/top1" else min
        values = [v for _, v in series.get(key, [])]
        done = f"{100 * run['step'] // run['max_steps']}%" if run["max_steps"] else str(run["step"])
        row = [run["status"], done, run["norm"], run["model"], run["data"], str(run["seed"])]
        row += [number(run["final"].get("train/loss")), number(run["final"].get(key))]
        row += [number(better(values, default=None)), sparkline([v for _, v in series.get("train/loss", [])], 16)]
        rows.append((*map(plain, row), plain(run["name"])))
    widths = [max(len(row[i]) for row in rows) for i in range(10)]
    lines = []
    for row in rows:
        line = "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=False)) + "  " + row[10]
        lines.append(line if len(line) <= width else line[: width - 1] + "…")
    broken = sum(run["broken"] for run, _ in chosen)
    lines += [f"{broken} broken lines of metrics.jsonl left out"] if broken else []
    return "\n".join(lines)


def compared(a: Path, b: Path) -> str:
    """Settings and results in which two runs differ.

    Raises:
        ValueError: one is not a run directory with metrics.
    """
    from dyt.report.collect import of_directory

    found = []
    for folder in (a, b):
        pair = of_directory(folder) if (folder / "run.json").is_file() else None
        if pair is None:
            raise ValueError(
                f"{folder}: not a run directory with metrics; python scripts/runs.py lists those there are"
            )
        found.append(pair[0])
    one, two = found
    rows = [("", one["name"], two["name"])]
    for key in sorted(one["config"].keys() | two["config"].keys()):
        values = [plain(run["config"].get(key, "-")) for run in found]
        rows += [(key, *values)] if values[0] != values[1] else []
    rows += [("status", one["status"], two["status"]), ("step", str(one["step"]), str(two["step"]))]
    for kind in ("final", "best"):
        for key in sorted(one[kind].keys() | two[kind].keys()):
            x, y = one[kind].get(key), two[kind].get(key)
            change = f"{y - x:+.4g}" if isinstance(x, float) and isinstance(y, float) else ""
            rows.append((f"{kind} {key}", number(x), f"{number(y)}  {change}".rstrip()))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{k.ljust(widths[0])}  {x.ljust(widths[1])}  {y}".rstrip() for k, x, y in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs"), help="where the runs are (default runs/)")
    parser.add_argument("--follow", action="store_true", help="again every 2 seconds, until Ctrl-C")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two run directories")
    parser.add_argument("words", nargs="*", metavar="WORD", help="runs that have it; -WORD: that have it not")
    without = [w for w in sys.argv[1:] if w[:1] == "-" and w[1:2] != "-" and w not in ("-h", "-")]
    asked = parser.parse_intermixed_args([w for w in sys.argv[1:] if w not in without])
    words = [*asked.words, *without]
    if asked.compare:
        if words or asked.follow:
            raise ValueError(f"--compare A B takes no {words[0] if words else '--follow'}; leave it out")
        print(compared(*asked.compare))
        return 0
    while True:
        size = shutil.get_terminal_size((160, 50))
        table = listed(asked.root, words, size.columns if sys.stdout.isatty() else 10_000)
        if not asked.follow:
            print(table)
            return 0
        if sys.stdout.isatty():
            table = "\033[H\033[2J" + "\n".join(table.splitlines()[: size.lines - 1])
        print(table, flush=True)
        time.sleep(2)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as problem:
        print(f"runs.py: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(0)
    except BrokenPipeError:  # into head
        sys.stderr.close()
