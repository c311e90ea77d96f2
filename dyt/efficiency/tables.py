"""Tables and the picture of what `measure` found, and what of it was asked for."""

import json
from functools import partial
from pathlib import Path

from dyt.rundir.files import replace_file
from dyt.studies.showing.marked import Part
from dyt.studies.showing.table import claims

PAPER_EAGER = "DyT (as in the paper, eager)"


def time(t: dict, digits: int = 2) -> str:
    return f"{t['median']:.{digits}f} ({t['low']:.{digits}f} to {t['high']:.{digits}f})"


def times_of(r: dict | None, digits: int = 2) -> str:
    """A ratio with its interval, e.g. ``0.92 [0.90, 0.95]``."""
    if r is None:
        return "-"
    if r["low"] is None:
        return "lost in noise"
    return f"{r['median']:.{digits}f} [{r['low']:.{digits}f}, {r['high']:.{digits}f}]"


def table(head: list[str], rows: list[list], numbers_from: int = 1) -> list[str]:
    rule = ["---"] * numbers_from + ["---:"] * (len(head) - numbers_from)
    return ["| " + " | ".join(map(str, line)) + " |" for line in (head, rule, *rows)]


def sizes_of(rows: list[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for r in rows:
        found.setdefault(f"{r['rows']} x {r['cols']}, {r['dtype']}", []).append(r)
    return found


def op_table(rows: list[dict]) -> str:
    head = ["contender", "forward, ms", "of LayerNorm", "forward + backward, ms", "of LayerNorm"]
    head += ["copy's bandwidth", "kept, MiB", "peak, MiB"]
    lines = []
    for size, here in sizes_of(rows).items():
        lines += [size, ""]
        body = []
        for r in here:
            cells = [r["contender"]]
            for phase in ("forward", "forward_backward"):
                there = f"{phase}_ms" in r
                cells += [time(r[f"{phase}_ms"], 3), times_of(r[f"{phase}_of LayerNorm"])] if there else ["-", "-"]
            bandwidth = f"{r['bandwidth_of_copy']:.2f}" if "bandwidth_of_copy" in r else "-"
            body.append([*cells, bandwidth, r.get("saved_mib", "-"), r.get("peak_mib", "-")])
        lines += [*table(head, body), ""]
    return "\n".join(lines)


def step_table(rows: list[dict]) -> str:
    head = ["model", "norm", "step, ms", "of LayerNorm", "kept for backward, MiB"]
    body = [[r["model"], r["norm"], time(r["step_ms"]), times_of(r["of layernorm"], 3), r["saved_mib"]] for r in rows]
    return "\n".join([*table(head, body, 2), ""])


def data_table(rows: list[dict]) -> str:
    head, body = ["data", "unit", "median (quartiles)"], []
    for r in rows:
        t = r["rate"]
        body.append([r["data"], r["unit"], f"{t['median']:,.0f} ({t['low']:,.0f} to {t['high']:,.0f})"])
        if "taken" in r:
            times = t["median"] / r["taken"]["median"]
            said = "yes" if times > 1.1 else "only just" if times > 0.9 else "**no**, more data.workers"
            body[-1] += [f"{r['model']} takes {r['taken']['median']:,.0f}", f"{said} ({times:,.1f} times)"]
    head += ["a training step", "loading keeps up"] if any("taken" in r for r in rows) else []
    return "\n".join([*table(head, body, 2), ""])


def profile_table(rows: list[dict]) -> str:
    parts = list(rows[0]["parts_ms"])
    head = ["model", "norm", "step, ms", *(f"{p}, %" for p in parts)]
    body = [
        [r["model"], r["norm"], r["step_ms"], *(f"{100 * r['parts_ms'][p] / r['step_ms']:.1f}" for p in parts)]
        for r in rows
    ]
    return "\n".join([*table(head, body, 2), ""])


def text(name: str, written: dict) -> str:
    """What a page shows of a file ``<what>-<device>.json``: its table, and on what it was measured.

    `written` is the file's content, ``{provenance, rows}``.
    """
    what, about = name.partition("-")[0], written["provenance"]
    made = TABLES[what](written["rows"])
    made += f"\n{about['hardware']}, {about['threads']} threads, torch {about['versions']['torch']}"
    made += ".\n" if what == "profile" else (
        "; medians (quartiles), [95% intervals]; contenders take turns in one process.\n"
    )  # fmt: skip
    if name == "op-cuda":
        made += "Time of the kernels on the GPU; what Python takes to launch them is left out.\n"
    return made


# ------------------------------------------------------------------------------------------------ the paper's claims

MARGIN = 0.03  # times this near each other count as equal
# Later version of arXiv 2503.10622: eager (Table 14) and compiled (Table 15), LLaMA-7B on an H100.
CLAIMS = {
    (phase, compiled, part): f"dyt-table{'15-latency-compiled' if compiled else '14-latency'}-{phase}-{part}"
    for compiled in (False, True)
    for phase in ("inference", "training")
    for part in ("layer", "model")
}


def verdict(paper: float, here: dict) -> str:
    """Whether DyT's time over RMSNorm's, with its interval, falls on the paper's side: faster, equal or slower."""
    low, high = 1 - MARGIN, 1 + MARGIN
    side = "faster" if paper < low else "slower" if paper > high else "equal"
    if here["low"] is None:
        return "inconclusive"
    on = {"faster": here["high"] < 1, "equal": low < here["low"] and here["high"] < high, "slower": here["low"] > 1}
    off = {"faster": here["low"] >= 1, "equal": here["high"] < low or here["low"] > high, "slower": here["high"] <= 1}
    return "agrees" if on[side] else "disagrees" if off[side] else "inconclusive"


def model_table(rows: list[dict]) -> str:
    size = rows[0]
    lines = [
        f"LLaMA style, width {size['dim']}, {size['depth']} layers, 1 x {size['context']} tokens, {size['dtype']}",
        "",
    ]
    body = [
        [
            "compiled" if r["compiled"] else "eager",
            *(r["phase"], r["contender"], time(r["model_ms"]), f"{r['layer_ms']:.2f}"),
        ]
        for r in rows
    ]
    lines += [*table(["mode", "phase", "contender", "model, ms", "norms alone, ms"], body, 3), ""]
    head = ["claim", "paper: DyT / RMSNorm", "here: as in the paper / Hugging Face's", "verdict"]
    body = []
    for (phase, compiled, part), name in CLAIMS.items():
        here = {r["contender"]: r for r in rows if (r["phase"], r["compiled"]) == (phase, compiled)}
        paper = claims()[name]["values"]["dyt"] / claims()[name]["values"]["rmsnorm"]
        found = here["DyT (as in the paper)"][f"{part}_of_rmsnorm"]
        ours = here["DyT (ours)"][f"{part}_of_rmsnorm"]
        body.append([name, f"{paper:.2f}", times_of(found), verdict(paper, found), times_of(ours)])
    return "\n".join([*lines, *table([*head, "here: ours / fused"], body), ""])


# --------------------------------------------------------------------------------------------------- what was asked


def _held(found: dict | float | None, limit: float, at_least: bool = False) -> str:
    """By the median, as was asked; and whether the interval says so too."""
    if found is None:
        return "-"
    low, middle, high = (found[k] for k in ("low", "median", "high")) if isinstance(found, dict) else [found] * 3
    held = middle >= limit if at_least else middle <= limit
    certain = low is not None and (low >= limit or high < limit if at_least else high <= limit or low > limit)
    return ("yes" if held else "**no**") + ("" if certain else ", not certain")


def targets(folder: Path) -> str:
    """What this project asks of its kernels, and what the committed rows in `folder` say."""

    def rows(name: str) -> list[dict]:
        path = folder / f"{name}.json"
        return json.loads(path.read_text())["rows"] if path.exists() else []

    body = []

    def line(what: str, limit: float, found: dict | float | None, command: str, at_least: bool = False):
        figure = f"not measured: `{command}`"
        if found is not None:
            figure = times_of(found, 3) if isinstance(found, dict) else f"{found:.3f}"
        body.append([what, f"{'>=' if at_least else '<='} {limit}", figure, _held(found, limit, at_least)])

    here = sizes_of(rows("op-cpu"))
    for size in ("8192 x 768, float32", "4096 x 4096, float32"):
        ours = next((r for r in here.get(size, []) if r["contender"] == "DyT (ours)"), {})
        for phase, base, limit in (
            ("forward", "LayerNorm", 1.0),
            ("forward_backward", "LayerNorm", 1.0),
            ("forward", PAPER_EAGER, 0.15),
        ):
            name = f"{size}: {phase.replace('_', ' + ')}, time over that of {base}"
            line(name, limit, ours.get(f"{phase}_of {base}"), "python scripts/bench.py op --device cpu")
    steps = rows("step-cpu")
    for model in ("gpt_nano", "gpt_mini", "vit_tiny"):
        at = {r["norm"]: r for r in steps if r["model"] == model}
        again = "python scripts/bench.py step --device cpu"
        line(f"{model}: a step's time over LayerNorm's", 1.02, at["dyt"]["of layernorm"] if at else None, again)
        memory = at["dyt"]["saved_mib"] / at["layernorm"]["saved_mib"] if at else None
        line(f"{model}: memory kept over LayerNorm's", 1.0, memory, again)
    gpu = sizes_of(rows("op-cuda")).get("16384 x 4096, bfloat16", [])
    ours = next((r for r in gpu if r["contender"] == "DyT (ours)"), {})
    size, again = "CUDA, 16384 x 4096, bfloat16", "python scripts/bench.py op --device cuda"
    line(f"{size}: forward, of a copy's bandwidth", 0.85, ours.get("bandwidth_of_copy"), again, at_least=True)
    for base in ("DyT (liger-kernel)", "DyT (torch.compile)", "LayerNorm", "RMSNorm (fused)"):
        command = f"pip install -e .[liger] && {again}" if "liger" in base else again
        line(
            f"{size}: forward + backward, time over that of {base}",
            1.0,
            ours.get(f"forward_backward_of {base}"),
            command,
        )
    return "\n".join([*table(["our DyT", "asked", "found", "held"], body), ""])


TABLES = {"op": op_table, "step": step_table, "model": model_table, "data": data_table, "profile": profile_table}


def _part(name: str) -> Part:
    what, _, device = name.partition("-")
    command = f"python scripts/bench.py {what} --device {device} --readme"

    def told(results: Path) -> str:
        return text(name, json.loads((results / "efficiency" / f"{name}.json").read_text()))

    return Part(f"bench-{name}", command, told, f"efficiency/{name}.md")


def parts(results: Path) -> list[Part]:
    """A part for each file ``results/efficiency/<what>-<device>.json``, and what was asked for."""
    names = sorted(path.stem for path in (results / "efficiency").glob("*-*.json"))
    again = "python scripts/bench.py op --readme"
    asked = Part("bench-targets", again, lambda folder: targets(folder / "efficiency"), "efficiency/targets.md")
    return [*map(_part, names), asked]


def picture(rows: list[dict], path: Path) -> None:
    """Time over LayerNorm's, a panel a size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = sizes_of([r for r in rows if r["contender"] != "no norm"])
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5.2 * len(panels), 3.8), layout="constrained", squeeze=False, sharex=True
    )
    for axis, (size, here) in zip(axes[0], panels.items(), strict=True):
        for offset, phase, colour in ((-0.2, "forward", "#0072B2"), (0.2, "forward_backward", "#D55E00")):
            for i, r in enumerate(here):
                if f"{phase}_ms" in r:
                    found = r[f"{phase}_of LayerNorm"]
                    label = phase.replace("_", " + ") if i == 0 else None
                    axis.barh(i + offset, found["median"], 0.38, color=colour, label=label)
                    text = f" {found['median']:.2f}"
                    axis.text(found["median"], i + offset, text, va="center", fontsize=8)
        axis.axvline(1, color="black", lw=1)
        axis.set_yticks(range(len(here)), [r["contender"] for r in here])
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set(title=size, xlabel="time / LayerNorm's")
        axis.legend(loc="lower right")
    replace_file(path, partial(figure.savefig, format="png", dpi=110))
    plt.close(figure)
