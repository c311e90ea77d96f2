"""Sends past runs to W&B, from their metrics.jsonl: what was run offline, or what a server did not take.

    python scripts/wandb_sync.py                     every run under runs/
    python scripts/wandb_sync.py runs/default/gpt*   these

What the server lacks is sent, under the id that the run has always had, so the same run twice is one run. Key and
server are W&B's (WANDB_API_KEY or `wandb login`, WANDB_BASE_URL), project and entity the run's. Exit code 1: some run
was not sent.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def runs_under(place: Path) -> list[Path]:
    """Run directories: `place` itself, or those below it."""
    if (place / "run.json").is_file():
        return [place]
    return sorted(p.parent for p in place.rglob("run.json")) if place.is_dir() else []


def send(folder: Path, mode: str) -> int:
    """Sends one run; returns how many rows it has.

    Raises:
        ValueError: it cannot be sent, in one line.
    """
    from dyt.config import flatten
    from dyt.lock import Lock
    from dyt.manifest import read_json
    from dyt.tracking import about_run, read_metrics, short_summary, start_wandb

    about, summary = read_json(folder / "run.json") or {}, read_json(folder / "summary.json")
    rows = read_metrics(folder / "metrics.jsonl")
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        shown = about_run(config, folder)
        run_id = about["wandb_id"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError("run.json or config.yaml is damaged") from error
    if not rows:
        raise ValueError("metrics.jsonl has no rows")
    with Lock(folder), tempfile.TemporaryDirectory() as scratch:  # a run that is going on is not sent
        config = flatten(config) | {"config_hash": about.get("config_hash")}
        run = start_wandb(mode, folder if mode == "offline" else Path(scratch), run_id, config, rows, **shown)
        if summary:
            run.summary.update(short_summary(summary))
        run.finish(exit_code=1 if summary and summary["status"] == "failed" else 0)
    return len(rows)


def main(words: list[str]) -> int:
    from dyt.tracking import wandb_mode

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="*", default=["runs"], help="run directories, or folders of them")
    asked = parser.parse_args(words)
    folders = {place: runs_under(Path(place)) for place in asked.runs}
    for place, found in folders.items():
        if not found:
            raise ValueError(f"{place}: no run there; train one first, for instance: python train.py norm=dyt")
    mode = wandb_mode("auto")
    if mode == "disabled" or (mode == "offline" and not _asked_offline()):
        raise ValueError("W&B has no key; set WANDB_API_KEY or type: wandb login (WANDB_MODE=offline writes its files)")
    failed = 0
    for folder in dict.fromkeys(f for found in folders.values() for f in found):
        try:
            print(f"{folder}: sent, {send(folder, mode)} rows", flush=True)
        except Exception as error:  # wandb raises its own, requests' and OS errors alike
            failed += 1
            print(f"{folder}: not sent ({' '.join(str(error).split())[:200]})", file=sys.stderr)
    return 1 if failed else 0


def _asked_offline() -> bool:
    import os

    return os.environ.get("WANDB_MODE", "").lower() == "offline"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as problem:
        print(f"wandb_sync.py: {problem}", file=sys.stderr)
        sys.exit(1)
