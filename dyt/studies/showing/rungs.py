"""The ladder of docs/ladder.md: one command a rung, and what a dry run says of each."""

import json
from pathlib import Path

from dyt.rundir.files import write_json
from dyt.studies.showing.marked import Part

FILE = "scaling/ladder.json"
LLAMA = "experiment=paper_llama model=llama_7b norm=rmsnorm model.embed_scale=none"
RUNGS = (  # where, how the command begins, its words, and what the dry run reckons with besides
    ("a laptop", "python train.py", "model=gpt_nano norm=layernorm", "hardware.kind=cpu"),
    ("one GPU", "python train.py",
     "model=gpt_64m data=wikitext2 data.batch_size=64 trainer.precision=bf16 norm=layernorm", "hardware.kind=rtx4090"),
    ("8 GPUs", "torchrun --nproc-per-node 8 train.py", "experiment=paper_gpt2 norm=layernorm norm.bias=false", ""),
    ("a cluster under SLURM", "srun python train.py", "experiment=paper_imagenet model.drop_path=0.1 norm=dyt", ""),
    ("hub-scale data, a large cluster", "srun python train.py", LLAMA, ""),
)  # fmt: skip


def measure(results: Path) -> None:
    """Reckons every rung, and writes the rows."""
    from dyt.config import compose
    from dyt.forecast.hardware import GIB
    from dyt.forecast.reckon import reckon

    rows = []
    for where, begins, words, more in RUNGS:
        r = reckon(compose.load([*words.split(), *more.split()]))
        rows.append({
            "where": where,
            "command": f"{begins} {words}",
            "dry_run": f"python train.py {words} {more} trainer.dry_run=true".replace("  ", " "),
            "devices": f"{r.devices} x {r.device.name}",
            "parameters": r.traced[r.mine[1]].count,
            "memory_gib": round(r.memory.total / GIB, 2),
            "hours": r.hours,
            "device_hours": r.hours * r.devices,
            "dollars": r.hours * r.devices * r.price,
            "mb_per_s": r.stored * r.order.batch / r.seconds / 1e6,
        })  # fmt: skip
    (results / FILE).parent.mkdir(parents=True, exist_ok=True)
    write_json(results / FILE, {"rows": rows})


def text(results: Path) -> str:
    """The table."""
    from dyt.forecast.dry_run import hours, short

    head = "| where | devices | parameters | memory of one | time | device hours | dollars | reads |"
    lines = [head, "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in json.loads((results / FILE).read_text())["rows"]:
        cells = [row["where"], row["devices"], f"{row['parameters'] / 1e6:,.1f}M", f"{row['memory_gib']:,.1f} GiB"]
        cells += [hours(row["hours"]), short(row["device_hours"]), _dollars(row["dollars"])]
        lines.append("| " + " | ".join([*cells, f"{short(row['mb_per_s'])} MB/s"]) + " |")
    return "\n".join(lines) + "\n"


def _dollars(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


PART = Part("ladder-costs", "python scripts/maintain/ladder.py", text)
