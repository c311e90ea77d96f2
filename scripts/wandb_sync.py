"""Sends past runs to W&B, from their metrics.jsonl: what was run offline, or what a server did not take.

    python scripts/wandb_sync.py                     every run under runs/
    python scripts/wandb_sync.py runs/default/gpt*   these
    python scripts/wandb_sync.py --study gpt_norms   a study's figure and verdicts, and the papers' numbers as runs
    python scripts/wandb_sync.py --study gpt_norms --report    and a saved workspace and a report (wandb-workspaces)

What the server lacks is sent, under the id that the run has always had, so the same run twice is one run. Key and
server are W&B's (WANDB_API_KEY or `wandb login`, WANDB_BASE_URL), project and entity the run's. Where W&B's own
`wandb sync` has sent some of it, the server is asked whether that was all; if not, or if it cannot be known, one line
says so, and --anew sends the run under a new id. Exit code 1: some run was not sent.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def send(folder: Path, mode: str, anew: bool = False) -> int:
    """Sends one run, `anew` under a new id; returns how many rows it has.

    Raises:
        ValueError: it cannot be sent, in one line.
    """
    from dyt.rundir.files import read_json, write_json
    from dyt.rundir.lock import Lock
    from dyt.tracking.metrics import read_metrics
    from dyt.tracking.wandb import about_run, new_id, rows_at_server, short_summary, shown, start_wandb

    about, summary = read_json(folder / "run.json") or {}, read_json(folder / "summary.json")
    rows = read_metrics(folder / "metrics.jsonl")
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        named = about_run(config, folder)
        run_id = new_id(about["config_hash"]) if anew else about["wandb_id"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError("run.json or config.yaml is damaged") from error
    if not rows:
        raise ValueError("metrics.jsonl has no rows")
    with Lock(folder), tempfile.TemporaryDirectory() as scratch:  # a run that is going on is not sent
        settings = shown(config, about.get("config_hash"))
        if anew:
            write_json(folder / "run.json", about | {"wandb_id": run_id})
        elif mode == "online" and list(folder.glob(f"wandb/offline-run-*/run-{run_id}.wandb")):
            _refuse_gaps(folder, rows, *rows_at_server(named["project"], named["entity"], run_id))
        run = start_wandb(mode, folder if mode == "offline" else Path(scratch), run_id, settings, rows, **named)
        if summary:
            run.summary.update(short_summary(summary))
        run.finish(exit_code=1 if summary and summary["status"] == "failed" else 0)
    return len(rows)


def _refuse_gaps(folder: Path, rows: list[dict], count: int | None, last: int | None) -> None:
    """Raises ValueError where rows that the server has are not this run's first ones, each once.

    W&B takes steps in rising order only: what is missing before its last one can never be added.
    """
    again = f"send it as a new run with: python scripts/wandb_sync.py --anew {folder}"
    if count is None:
        raise ValueError(f"it has offline files, and what `wandb sync` sent of them cannot be known; {again}")
    want = sum(row["step"] <= last for row in rows) if count else 0
    if count != want:
        raise ValueError(f"W&B has {count} rows up to step {last}, this run has {want}: `wandb sync` sent some of its "
                         f"offline files out of order, or twice; {again}")  # fmt: skip


def main(words: list[str]) -> int:
    from dyt.report.collect import run_directories

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="*", default=["runs"], help="run directories, or folders of them")
    parser.add_argument("--anew", action="store_true", help="send under a new id: the one so far is spoilt at W&B")
    parser.add_argument("--study", action="append", default=[], help="a study of results/, instead of runs")
    parser.add_argument("--scale", default="small", help="of the study: small (default), gpu or paper")
    parser.add_argument("--report", action="store_true", help="with --study: save a workspace and a report per study")
    parser.add_argument("--artifacts", action="store_true", help="with --study: its runs.csv and curves too, online")
    parser.add_argument("--project", default="dyt", help="for --study")
    parser.add_argument("--entity", default=None, help="for --study: the W&B team or user")
    asked = parser.parse_args(words)
    if asked.study or asked.report:
        return studies(asked)
    folders = {place: run_directories(Path(place)) for place in asked.runs if ".replaced-" not in Path(place).name}
    for place, found in folders.items():
        if not found:
            raise ValueError(f"{place}: no run there; train one first, for instance: python train.py norm=dyt")
    for place in set(asked.runs) - set(folders):
        print(f"{place}: left out, it was moved aside for a run of the same settings")
    mode = mode_or_refuse()
    failed = 0
    for folder in dict.fromkeys(f for found in folders.values() for f in found):
        try:
            count = send(folder, mode, asked.anew)
            files = f"written, to be sent by: wandb sync {folder}/wandb/offline-run-*"
            print(f"{folder}: {'sent' if mode == 'online' else files}, {count} rows", flush=True)
        except Exception as error:  # wandb raises its own, requests' and OS errors alike
            failed += 1
            print(f"{folder}: not sent ({' '.join(str(error).split())[:400]})", file=sys.stderr)
    return 1 if failed else 0


def studies(asked: argparse.Namespace) -> int:
    """What ``--study`` asks for."""
    from dyt.report.wandb_studies import OFFLINE, report_of, send_study, workspace_of
    from dyt.studies.running.study import SCALES, Study

    if not asked.study or asked.scale not in SCALES:
        wrong = (
            f"--scale {asked.scale}: choose from {', '.join(SCALES)}" if asked.study else "--report: give --study NAME"
        )
        raise ValueError(wrong)
    chosen, results = [Study(name) for name in asked.study], ROOT / "results"
    if asked.report:  # made before anything is sent: what is missing is said first
        if not asked.entity:
            raise ValueError("--report: give --entity, the W&B team or user that the report is for")
        made = [report_of(study, asked.scale, results, asked.project, asked.entity) for study in chosen]
        made.append(workspace_of(asked.project, asked.entity))
    mode = mode_or_refuse()
    for study in chosen:
        try:
            count = send_study(study, asked.scale, results, mode, asked.project, asked.entity, asked.artifacts)
        except Exception as error:  # wandb raises its own, requests' and OS errors alike
            raise ValueError(f"{study.name}: not sent ({' '.join(str(error).split())[:200]})") from error
        done = "sent" if mode == "online" else f"written, to be sent by: wandb sync {OFFLINE}/wandb/offline-run-*"
        print(f"{study.name}: {count} runs ({count - 1} of the papers' numbers) {done}", flush=True)
    if asked.report:
        for one in made:
            print(one.save().url)
    return 0


def mode_or_refuse() -> str:
    """``online``, or ``offline`` where that was asked for.

    Raises:
        ValueError: there is no key.
    """
    from dyt.tracking.wandb import wandb_mode

    mode = wandb_mode("auto")
    if mode == "disabled" or (mode == "offline" and os.environ.get("WANDB_MODE", "").lower() != "offline"):
        raise ValueError("W&B has no key; set WANDB_API_KEY or type: wandb login (WANDB_MODE=offline writes its files)")
    return mode


if __name__ == "__main__":
    from dyt.rundir.streams import steady

    try:
        with steady():
            code = main(sys.argv[1:])
        sys.exit(code)
    except ValueError as problem:
        print(f"wandb_sync.py: {problem}", file=sys.stderr)
        sys.exit(1)
