"""What a norm costs, measured against everything a user would pick instead.

    python scripts/bench.py op       one layer: time, memory, bandwidth
    python scripts/bench.py step     a training step of three models
    python scripts/bench.py model    the paper's Tables 14 and 15, with a verdict on each claim
    python scripts/bench.py data     what the loaders can feed, and whether that keeps up with a model; also of a
                                     recipe: data model=vit_base data=imagenet1k data.path=... data.workers=8
    python scripts/bench.py profile  where a training step's time goes, by norm
    python scripts/bench.py scaling  a step against processes, width, depth, context and batch: results/scaling/

Writes results/efficiency/<what>-<device>.json (rows with hardware and versions) and .md, and a picture for op;
targets.md says what was asked and what was found. Give it an idle machine.
"""

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
OUT = ROOT / "results" / "efficiency"


def op(device: str, rounds: int) -> list[dict]:
    import torch

    from dyt.efficiency.measure import measure_op

    if device == "cuda":
        sizes = ((16384, 4096, torch.bfloat16), (8192, 768, torch.float32))
    else:
        sizes = ((8192, 768, torch.float32), (4096, 4096, torch.float32), (768, 128, torch.float32))
    return [row for rows, cols, dtype in sizes for row in measure_op(rows, cols, device, dtype, rounds)]


def step(device: str, rounds: int) -> list[dict]:
    from dyt.efficiency.measure import measure_step

    norms = ["layernorm", "rmsnorm", "dyt", "derf", "none"]
    turns = {"gpt_nano": 12 * rounds, "vit_tiny": 2 * rounds, "gpt_mini": rounds}  # about as long for each
    return [row for model, n in turns.items() for row in measure_step(model, norms, device, n)]


def model(device: str, rounds: int) -> list[dict]:
    """LLaMA-7B's shapes in bfloat16 on a GPU that holds them; an eighth of width and depth on a CPU."""
    import torch

    from dyt.efficiency.measure import measure_model

    if device == "cuda":
        sizes, dtype = {"dim": 4096, "depth": 32, "heads": 32, "context": 4096, "mlp_dim": 11008}, torch.bfloat16
    else:
        sizes, dtype = {"dim": 512, "depth": 4, "heads": 8, "context": 512, "mlp_dim": 1376}, torch.float32
    return [row for compiled in (False, True) for row in measure_model(sizes, device, dtype, rounds, compiled)]


def data(device: str, rounds: int, words: list[str] = ()) -> list[dict]:
    from dyt.efficiency.measure import measure_data

    return measure_data(rounds, words, device)


def profile(device: str, rounds: int) -> list[dict]:
    """Each in a process of its own, as a run is: one that held three models before ran gelu three times slower."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from dyt.efficiency.measure import measure_profile

    steps = {"gpt_nano": 4 * rounds, "vit_tiny": rounds}
    norms = ("layernorm", "rmsnorm", "dyt", "derf", "none")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as one:
        return [one.submit(measure_profile, m, norm, n).result() for m, n in steps.items() for norm in norms]


def scaling(rounds: int, out: Path) -> int:
    """Measures in processes of its own, and writes rows and page."""
    import torch

    from dyt.efficiency.scaling import measure, table
    from dyt.rundir.files import write_json, write_text
    from dyt.rundir.provenance import provenance

    busy = round(os.getloadavg()[0], 2)
    steps, norms = measure(rounds)
    about = provenance(torch.device("cpu"), 1) | {"load_average_before": busy}
    written = {"provenance": about, "steps": steps, "norms": norms}
    write_json(out / "scaling-cpu.json", written)
    write_text(out / "scaling.md", table(written))
    print(table(written))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["op", "model", "step", "data", "profile", "scaling"])
    parser.add_argument("words", nargs="*", help="of data alone: a recipe's words, as for train.py; nothing is written")
    parser.add_argument("--device", choices=["cpu", "cuda"], default=None)
    parser.add_argument("--rounds", type=int, default=None, help="blocks of calls a contender; at least 2")
    parser.add_argument("--json", action="store_true", help="print the rows")
    parser.add_argument("--readme", action="store_true", help="put the table into its page, docs/speed.md")
    parser.add_argument("--out", type=Path, default=None, metavar="FOLDER", help="instead of results/efficiency")
    parser.add_argument(
        "--fresh-memory", action="store_true", help="op, step, model: let freed memory go back to the system"
    )
    given = parser.parse_args()
    if given.rounds is not None and given.rounds < 2:
        parser.error(f"--rounds {given.rounds}: type 2 or more")
    if given.words and given.what != "data":
        parser.error(f"{given.words[0]}: only data takes a recipe's words")
    if given.readme and given.out:
        parser.error("--readme: pages quote results/efficiency; leave out --out")
    ignored = {
        "--json": given.json and given.what == "scaling",
        "--readme": given.readme and (given.words or given.what == "scaling"),
        "--out": given.out and given.words,  # nothing is written
        "--fresh-memory": given.fresh_memory and given.what not in ("op", "step", "model"),
    }
    for word in (word for word, said in ignored.items() if said):
        parser.error(f"{word}: {given.what}{' of a recipe' if given.words else ''} does not look at it; leave it out")
    import torch

    from dyt.efficiency import tables
    from dyt.rundir.files import write_json, write_text
    from dyt.rundir.provenance import provenance
    from dyt.studies.showing.marked import between, fill
    from dyt.training import cpu

    of_cpu = given.what in ("data", "profile", "scaling") and not given.words  # a recipe goes where train.py runs it
    device = given.device or ("cuda" if torch.cuda.is_available() and not of_cpu else "cpu")
    if device == "cuda" and of_cpu:
        parser.error(f"--device cuda: {given.what} looks at the CPU; type --device cpu")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; type --device cpu")
    measure, rounds = {
        "op": (op, 25),
        "model": (model, 25 if device == "cpu" else 8),  # 7B takes long
        "step": (step, 10),
        "data": (data, 9),
        "profile": (profile, 15),
        "scaling": (scaling, 12),
    }[given.what]
    if given.words:
        try:
            rows = data(device, given.rounds or 4, given.words)
        except (ValueError, OSError) as error:
            parser.error(" ".join(str(error).split()))
        print(json.dumps(rows, indent=1) if given.json else tables.data_table(rows))
        return 0
    out = given.out or (ROOT / "results" / "scaling" if given.what == "scaling" else OUT)
    try:  # before minutes are spent on what could not be written
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        parser.error(f"--out {out}: {error.strerror}; type a folder that can be written")
    if given.what == "scaling":
        return measure(given.rounds or rounds, out)
    name = f"{given.what}-{device}"
    if given.readme:
        try:
            between(f"bench-{name}")
        except ValueError as error:
            parser.error(f"--readme: {error}; put these marks where the table belongs")
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"bench.py: something else runs here (load average {busy:.1f}): times may mean nothing", file=sys.stderr)
    if not given.fresh_memory:
        cpu.prepare()
    rows = measure(device, given.rounds or rounds)
    about = provenance(torch.device(device), torch.get_num_threads())
    about |= {"kernel": os.environ.get("DYT_KERNEL", "auto"), "load_average_before": round(busy, 2)}
    written = {"provenance": about, "rows": rows}
    write_json(out / f"{name}.json", written)
    text = tables.text(name, written)
    write_text(out / f"{name}.md", text)
    asked = tables.targets(out)
    write_text(out / "targets.md", asked)
    if given.what == "op":
        tables.picture(rows, out / f"{name}.png")
    if given.readme:
        fill(f"bench-{name}", text)
        fill("bench-targets", asked)
    print(json.dumps(rows, indent=1) if given.json else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
