"""Two families x five norms on data that the packages ship, through train.py, then one table and one picture.

    python scripts/demo.py        about 6 minutes on 2 CPU cores; again: a few seconds, nothing is trained twice

Writes rows.json, table.md and curves.png from the runs' own files to runs/demo/: what is committed stays as it is.
With --readme they become results/demo/ and the table of docs/running.md.
"""

import argparse
import math
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
NORMS = ("layernorm", "rmsnorm", "dyt", "dyt_unit_gain", "none")
# alpha0 1.0 is the paper's value at its smallest width, 1024; the GPT's DyT has it at every site. dyt_unit_gain starts
# where it does best in the study gain_init: alpha0 0.2 in a GPT, 0.5 in a ViT. The two families run side by side, a
# thread each.
COMMANDS = {
    "vit": (["-m", "experiment=demo_vit", "norm=layernorm,rmsnorm,dyt,dyt_unit_gain,none"],),
    "gpt": (
        ["-m", "experiment=demo_gpt", "norm=layernorm,rmsnorm,none"],
        ["-m", "experiment=demo_gpt", "norm=dyt", "norm.alpha_init=1.0"],
        ["-m", "experiment=demo_gpt", "norm=dyt_unit_gain", "norm.alpha_init=0.2"],
    ),
}
# Okabe and Ito's colours
COLOURS = {
    "layernorm": "#0072B2",
    "rmsnorm": "#56B4E9",
    "dyt": "#D55E00",
    "dyt_unit_gain": "#E69F00",
    "none": "#777777",
}
EVERY = 20  # seconds between two signs of life where no bar can be drawn


def folder_of(readme: bool) -> Path:
    """Where the table goes: into the repository where that is asked for, else where git looks away."""
    return ROOT / ("results" if readme else "runs") / "demo"


def plans() -> list:
    """The ten runs, in the table's order."""
    from dyt.config import compose, identity

    made = {}
    for _, experiment, norms, *rest in (command for commands in COMMANDS.values() for command in commands):
        for norm in norms.removeprefix("norm=").split(","):
            words = [experiment, f"norm={norm}", *rest]
            made[experiment, norm] = identity.plan(compose.load(words), words)
    return [made[f"experiment=demo_{family}", norm] for family in COMMANDS for norm in NORMS]


def unigram_entropy() -> float:
    """Nats per byte of the validation text under its own byte frequencies: what a model without context could reach."""
    import numpy as np

    from dyt.config import compose
    from dyt.data import open_data

    tokens = open_data(compose.load(["experiment=demo_gpt"])["data"], 64).tokens["val"]
    share = np.bincount(tokens) / len(tokens)
    return float(-sum(p * math.log(p) for p in share if p))


def row(plan, summary: dict) -> dict:
    """What the table shows of a run; None where a number is missing."""
    norm, final = plan.config["norm"], summary["final"]
    gamma = norm.get("gamma_init")
    return {
        "model": summary["model"],
        "norm": summary["norm"],
        "alpha0": norm.get("alpha_init"),
        "gamma0": 1 / norm["alpha_init"] if gamma == "inverse_alpha" else gamma,
        "parameters": summary["parameters"],
        "final": final.get("val/loss"),
        "best": (summary["best"].get("val/loss") or {}).get("value"),
        "top1": final.get("val/top1"),
        "step_ms": step_ms(ROOT / plan.dir, summary),
        "step": summary["step"],
        "status": summary["status"],
    }


def step_ms(folder: Path, summary: dict) -> float | None:
    """Median time of a training step, evaluation and saving left out, in ms."""
    import statistics

    from dyt.tracking.metrics import read_metrics

    unit = "tokens" if "tokens" in summary else "images"
    per_step = summary[unit] / max(1, summary["step"])
    speeds = [row[f"{unit}_per_s"] for row in read_metrics(folder / "metrics.jsonl") if row.get(f"{unit}_per_s")]
    return 1000 * per_step / statistics.median(speeds) if speeds else None


def picture(runs: list[tuple], path: Path) -> None:
    """Training and validation loss, the families side by side, one colour per norm."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    from dyt.rundir.files import replace_file
    from dyt.tracking.metrics import read_metrics

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    for axis, model in zip(axes, dict.fromkeys(summary["model"] for _, summary in runs), strict=True):
        shown = []
        for plan, summary in runs:
            if summary["model"] != model:
                continue
            rows, colour = read_metrics(ROOT / plan.dir / "metrics.jsonl"), COLOURS[summary["norm"]]
            for key, style in (
                ("train/loss", {"alpha": 0.35, "lw": 1}),
                ("val/loss", {"lw": 2, "marker": "o", "ms": 3}),
            ):
                points = [(r["step"], r[key]) for r in rows if r.get(key) is not None]
                if points:
                    label = summary["norm"] if key == "val/loss" else None
                    axis.plot(*zip(*points, strict=True), color=colour, label=label, **style)
                shown += [value for step, value in points if step > 0.05 * summary["max_steps"]]
            if summary["status"] == "diverged":
                axis.axvline(summary["step"], color=colour, ls=":", label=f"{summary['norm']} diverged")
        data = runs[0][0].config if model == runs[0][1]["model"] else runs[-1][0].config
        axis.set(xlabel="step", ylabel="loss (nats)", title=f"{model} on {data['data']['name']}")
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        if shown:
            axis.set_ylim(min(shown) * 0.9, max(shown) * 1.1)
        axis.grid(alpha=0.25, which="both")
        axis.legend(title="norm (thick: validation,\nthin: training)")
    replace_file(path, partial(figure.savefig, format="png", dpi=110))
    plt.close(figure)


def train(family: str, place: int, codes: dict, now: dict) -> None:
    """Runs a family's commands; its step lines move a bar and are kept in `now`, all others are printed."""
    import re

    from tqdm import tqdm

    for command in COMMANDS[family]:
        say(f"{family} | $ python train.py {' '.join(command)}")
        words = [sys.executable, str(ROOT / "train.py"), *command]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        with tqdm(desc=family, position=place, unit="step", disable=not sys.stderr.isatty(), leave=False) as bar:
            for line in process.stdout:
                if step := re.match(r"step (\d+)/(\d+): (.*)", line):
                    bar.total, bar.n = int(step[2]), int(step[1])
                    bar.set_postfix_str(step[3])
                    now[family] = line.rstrip()
                else:
                    say(f"{family} | {line.rstrip()}")
        codes[family] = max(codes.get(family, 0), abs(process.wait()))
    now.pop(family, None)


def say(text: str) -> None:
    """Prints a line at once, above the bars."""
    from tqdm import tqdm

    tqdm.write(text)
    sys.stdout.flush()


def wait_for(threads: list, now: dict) -> None:
    """Until all threads end; where no bar can be drawn, how far each family is, every `EVERY` seconds."""
    began, said = time.monotonic(), time.monotonic()
    while running := [thread for thread in threads if thread.is_alive()]:
        running[0].join(timeout=1)
        if not sys.stderr.isatty() and time.monotonic() - said >= EVERY:
            said = time.monotonic()
            for family in list(now):
                say(f"{family} | {said - began:.0f} s, {now[family]}")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", action="store_true", help="write results/demo/ and the table of docs/running.md")
    readme = parser.parse_args(words).readme
    codes: dict[str, int] = {}
    now = dict.fromkeys(COMMANDS, "starting")
    threads = [threading.Thread(target=train, args=(family, i, codes, now)) for i, family in enumerate(COMMANDS)]
    for thread in threads:
        thread.start()
    wait_for(threads, now)
    if code := max(codes.values()):
        print(f"demo: a command ended with exit code {code}; make demo again goes on from here", file=sys.stderr)
        return code
    from dyt.rundir.files import read_json, write_json, write_text
    from dyt.studies.showing.demo import PART

    runs = [(plan, read_json(ROOT / plan.dir / "summary.json")) for plan in plans()]
    out = folder_of(readme)
    out.mkdir(parents=True, exist_ok=True)
    picture(runs, out / "curves.png")
    about = {"rows": [row(*run) for run in runs], "unigram_entropy": unigram_entropy()}
    about |= {"load_average": os.getloadavg()[2], "provenance": runs[0][1]["provenance"]}
    write_json(out / "rows.json", about)
    text = PART.text(out.parent)
    write_text(out / "table.md", text)
    if readme:
        PART.write(out.parent)
    print(f"\n{text}\ntable    {out / 'table.md'}\npicture  {out / 'curves.png'}", flush=True)
    done = subprocess.run([sys.executable, str(ROOT / "scripts/report.py")], cwd=ROOT, capture_output=True, text=True)
    print(f"page     {done.stdout.strip()}" if done.returncode == 0 else done.stderr.strip())
    print(f"W&B's own view of these runs, without an account: wandb leet {ROOT / plans()[0].dir / 'wandb'}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
