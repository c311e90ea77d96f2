"""What a norm costs, measured against everything a user would pick instead.

    python scripts/bench.py op   [--device cpu|cuda] [--json] [--rounds N]     one layer: time, memory, bandwidth
    python scripts/bench.py step [--device cpu|cuda] [--json] [--rounds N]     a training step of three models
    python scripts/bench.py model [--device cpu|cuda] [--json] [--rounds N]    the paper's Tables 14 and 15
    python scripts/bench.py data [--json] [--rounds N]                         what the loaders can feed

Writes results/efficiency/<what>-<device>.json (rows with hardware and versions) and .md, and a picture for op.
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

    from dyt.efficiency import measure_op

    if device == "cuda":
        sizes = ((16384, 4096, torch.bfloat16), (8192, 768, torch.float32))
    else:
        sizes = ((8192, 768, torch.float32), (4096, 4096, torch.float32), (768, 128, torch.float32))
    return [row for rows, cols, dtype in sizes for row in measure_op(rows, cols, device, dtype, rounds)]


def step(device: str, rounds: int) -> list[dict]:
    from dyt.efficiency import measure_step

    norms = ["layernorm", "rmsnorm", "dyt", "derf", "none"]
    return [row for model in ("gpt_nano", "vit_tiny", "gpt_mini") for row in measure_step(model, norms, device, rounds)]


def model(device: str, rounds: int) -> list[dict]:
    """LLaMA-7B's shapes in bfloat16 on a GPU that holds them; an eighth of the width and depth on a CPU."""
    import torch

    from dyt.efficiency import measure_model

    if device == "cuda":
        sizes, dtype = {"dim": 4096, "depth": 32, "heads": 32, "context": 4096, "mlp_dim": 11008}, torch.bfloat16
    else:
        sizes, dtype = {"dim": 512, "depth": 4, "heads": 8, "context": 512, "mlp_dim": 1376}, torch.float32
    return [row for compiled in (False, True) for row in measure_model(sizes, device, dtype, rounds, compiled)]


def data(device: str, rounds: int) -> list[dict]:
    from dyt.efficiency import measure_data

    return measure_data(rounds)


# Tables of the later version of arXiv 2503.10622: eager (14) and compiled (15), LLaMA-7B on an H100.
CLAIMS = {
    (phase, compiled): f"dyt-table{'15-latency-compiled' if compiled else '14-latency'}-{phase}-model"
    for phase in ("inference", "training")
    for compiled in (False, True)
}
MARGIN = 0.03  # two model times this near each other count as equal


def verdict(paper: float, ours: float) -> str:
    """Whether DyT's time over RMSNorm's falls on the paper's side: faster, equal within the margin, or slower."""

    def side(ratio: float) -> int:
        return 0 if abs(ratio - 1) <= MARGIN else (-1 if ratio < 1 else 1)

    return "agrees" if side(paper) == side(ours) else "disagrees"


def model_table(rows: list[dict]) -> str:
    import yaml

    claims = {c["id"]: c for c in yaml.safe_load((ROOT / "results/paper/claims.yaml").read_text())["claims"]}
    size = rows[0]
    lines = [
        f"LLaMA style, width {size['dim']}, {size['depth']} layers, 1 x {size['context']} tokens, {size['dtype']}",
        "",
        "| mode | phase | contender | model, ms | norms alone, ms |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    for r in rows:
        t = r["model_ms"]
        time = f"{t['median']:.2f} ({t['low']:.2f} to {t['high']:.2f})"
        mode = "compiled" if r["compiled"] else "eager"
        lines.append(f"| {mode} | {r['phase']} | {r['contender']} | {time} | {r['layer_ms']:.2f} |")
    lines += ["", "| claim | paper: DyT / RMSNorm | here: as in the paper | verdict | here: ours / fused RMSNorm |"]
    lines.append("| --- | ---: | ---: | --- | ---: |")
    for (phase, compiled), name in CLAIMS.items():
        at = {r["contender"]: r["model_ms"]["median"] for r in rows if (r["phase"], r["compiled"]) == (phase, compiled)}
        paper = claims[name]["values"]["dyt"] / claims[name]["values"]["rmsnorm"]
        here = at["DyT (as in the paper, eager)"] / at["RMSNorm (Hugging Face, eager)"]
        best = at["DyT (ours)"] / at["RMSNorm (fused)"]
        lines.append(f"| {name} | {paper:.3f} | {here:.3f} | {verdict(paper, here)} | {best:.3f} |")
    return "\n".join([*lines, ""])


def data_table(rows: list[dict]) -> str:
    lines = ["| data | unit | median (quartiles) |", "| --- | --- | ---: |"]
    for r in rows:
        t = r["rate"]
        lines.append(f"| {r['data']} | {r['unit']} | {t['median']:,.0f} ({t['low']:,.0f} to {t['high']:,.0f}) |")
    return "\n".join([*lines, ""])


def op_table(rows: list[dict]) -> str:
    lines = []
    for size in dict.fromkeys((r["rows"], r["cols"], r["dtype"]) for r in rows):
        here = [r for r in rows if (r["rows"], r["cols"], r["dtype"]) == size]
        base = next(r for r in here if r["contender"] == "LayerNorm")
        lines += [f"{size[0]} x {size[1]}, {size[2]}", ""]
        lines.append("| contender | forward, ms | of LayerNorm | forward + backward, ms | of LayerNorm | kept, MiB |")
        lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
        for r in here:
            cells = [r["contender"]]
            for key in ("forward_ms", "forward_backward_ms"):
                if key in r:
                    t = r[key]
                    cells.append(f"{t['median']:.3f} ({t['low']:.3f} to {t['high']:.3f})")
                    cells.append(f"{t['median'] / base[key]['median']:.2f}")
                else:
                    cells += ["-", "-"]
            lines.append("| " + " | ".join([*cells, str(r.get("saved_mib", "-"))]) + " |")
        lines.append("")
    return "\n".join(lines)


def step_table(rows: list[dict]) -> str:
    lines = [
        "| model | norm | step, ms | of LayerNorm | kept for backward, MiB |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for r in rows:
        base = next(b for b in rows if b["model"] == r["model"] and b["norm"] == "layernorm")
        t = r["step_ms"]
        ratio = t["median"] / base["step_ms"]["median"]
        time = f"{t['median']:.2f} ({t['low']:.2f} to {t['high']:.2f})"
        lines.append(f"| {r['model']} | {r['norm']} | {time} | {ratio:.3f} | {r['saved_mib']} |")
    return "\n".join([*lines, ""])


def picture(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes = list(dict.fromkeys((r["rows"], r["cols"], r["dtype"]) for r in rows))
    figure, axes = plt.subplots(1, len(sizes), figsize=(5.2 * len(sizes), 3.8), layout="constrained", squeeze=False)
    for axis, size in zip(axes[0], sizes, strict=True):
        here = [r for r in rows if (r["rows"], r["cols"], r["dtype"]) == size]
        base = next(r for r in here if r["contender"] == "LayerNorm")
        names = [r["contender"] for r in here]
        for offset, key, colour, label in (
            (-0.2, "forward_ms", "#0072B2", "forward"),
            (0.2, "forward_backward_ms", "#D55E00", "forward + backward"),
        ):
            ratio = [r[key]["median"] / base[key]["median"] if key in r else 0 for r in here]
            axis.barh([i + offset for i in range(len(here))], ratio, 0.38, color=colour, label=label)
        axis.axvline(1, color="black", lw=1)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set(title=f"{size[0]} x {size[1]}, {size[2]}", xlabel="time / LayerNorm's")
        axis.legend()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["op", "model", "step", "data"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default=None)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--json", action="store_true", help="print the rows")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    import torch

    from dyt.manifest import write_json, write_text
    from dyt.provenance import provenance

    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        print("bench.py: --device cuda: torch sees no GPU here; type --device cpu", file=sys.stderr)
        return 1
    parts = {
        "op": (op, op_table, 25),
        "model": (model, model_table, 6),
        "step": (step, step_table, 6),
        "data": (data, data_table, 9),
    }
    measure, table, rounds = parts[given.what]
    rows = measure(device, given.rounds or rounds)
    about = provenance(torch.device(device), torch.get_num_threads()) | {"kernel": os.environ.get("DYT_KERNEL", "auto")}
    OUT.mkdir(parents=True, exist_ok=True)
    name = f"{given.what}-{device}"
    write_json(OUT / f"{name}.json", {"provenance": about, "rows": rows})
    text = (
        table(rows) + f"\n{about['hardware']}, {about['threads']} threads, torch {about['versions']['torch']}; medians "
    )
    text += "(quartiles), contenders taking turns in one process.\n"
    write_text(OUT / f"{name}.md", text)
    if given.what == "op":
        picture(rows, OUT / f"{name}.png")
    if given.readme:
        from dyt.readme import fill

        fill(f"bench-{name}", text)
    print(json.dumps(rows, indent=1) if given.json else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
