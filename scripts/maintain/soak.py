"""A small study under random faults ends with the same rows as one that nothing happened to.

    python scripts/maintain/soak.py --faults 100          about 20 minutes on 2 CPU cores
    python scripts/maintain/soak.py --faults 10 --out /tmp/soak.json

Faults: SIGKILL and SIGTERM of the study or one of its workers, a flipped bit in the checkpoint that a run would go on
from, a full disk (a real file system, so mounting must be allowed), and a second process that wants to write a running
run's directory. After each the study is started again if it ended. Rounds are repeated until every kind has its share.
Writes what it did and whether anything differs; exit code 1 if so.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

STUDY = """\
title: Tiny runs for scripts/maintain/soak.py.
metric: val/loss
base: >-
  model=gpt_nano model.dim=16 model.depth=2 model.heads=2 model.context=16 model.dropout=0.1 data.workers=0
  trainer.max_steps=1500 trainer.eval_every=250 trainer.eval_batches=2 trainer.log_every=10 trainer.save_every=50
  trainer.threads=1 trainer.save_patience=2 trainer.ema_decay=0.99 trainer.accumulate=2
factors: {norm: {layernorm: norm=layernorm, dyt: norm=dyt, none: norm=none}}
scales: {smoke: {grid: {norm: all}, seeds: 2}}
tests: []
"""
OUT = ROOT / "results/reliability/soak.json"
TABLE = "results/soak/smoke/runs.csv"
KINDS = ("SIGKILL", "SIGTERM", "flipped bit", "full disk", "second writer")


class Soak:
    """One study in `place`, and the hand that disturbs it."""

    def __init__(self, place: Path, dice: random.Random):
        self.place, self.dice, self.starts, self.wrong = place, dice, 0, []
        place.mkdir()
        (place / "soak.yaml").write_text(STUDY)

    # -- the study -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        command = [sys.executable, str(ROOT / "scripts/reproduce.py"), str(self.place / "soak.yaml")]
        command += ["--scale", "smoke", "--jobs", "2", "--results", str(self.place / "results")]
        command += [f"out_root={self.place / 'runs'}", "logger.mode=disabled"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.starts += 1

    def rows(self) -> int:
        """Lines of all metrics.jsonl: how far the study is."""
        return sum(f.read_bytes().count(b"\n") for f in self.place.glob("runs/default/*/metrics.jsonl"))

    def advance(self, rows: int) -> bool:
        """Waits until the study has written so many rows more; False where it ended before."""
        goal = self.rows() + rows
        while self.rows() < goal:
            if self.process.poll() is not None:
                return False
            time.sleep(0.02)
        return True

    def workers(self) -> list[int]:
        pids = [int(log.stem.split("-")[1]) for log in self.place.glob("runs/.workers/worker-*.log")]
        return [pid for pid in pids if b"multiprocessing" in command_line(pid)]

    def unfinished(self) -> list[Path]:
        """Directories of runs that are under way or cut off."""
        runs = sorted(p.parent for p in self.place.glob("runs/default/*/metrics.jsonl"))
        return [run for run in runs if not (run / "summary.json").exists()]

    # -- the faults ------------------------------------------------------------------------------------------------

    def cause(self, kind: str) -> bool:
        """Causes a fault; False where there was no occasion."""
        if kind in ("SIGKILL", "SIGTERM"):
            return self.signal(getattr(signal, kind))
        return {"flipped bit": self.flip, "full disk": self.fill, "second writer": self.intrude}[kind]()

    def signal(self, number: int) -> bool:
        target = self.dice.choice([self.process.pid, *self.workers()])
        if self.process.poll() is not None:
            return False
        try:
            os.kill(target, number)
        except ProcessLookupError:  # it ended just now
            return False
        return True

    def flip(self) -> bool:
        """Kills the study and flips a bit of what the next start would read."""
        from dyt.rundir.files import manifests, verified

        self.process.kill()
        self.process.wait()
        while self.workers():  # they end with their parent
            time.sleep(0.02)
        runs = [run / "checkpoints" for run in self.unfinished()]
        runs = [r for r in runs if sum(not isinstance(verified(m), str) for m in manifests(r, "step")) >= 2]
        if not runs:
            return False
        newest = manifests(self.dice.choice(runs), "step")[0]
        file = self.dice.choice([newest, newest.with_suffix(".pt")])
        data = bytearray(file.read_bytes())
        bit = self.dice.randrange(8 * len(data))
        data[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(data)
        return True

    def fill(self) -> bool:
        """Takes the disk's last byte for about as long as a run is patient."""
        filler = self.place / "filler"
        try:
            with open(filler, "wb", buffering=0) as stream:
                while True:
                    stream.write(bytes(65536 if shutil.disk_usage(self.place).free > 65536 else 1))
        except OSError:
            pass
        time.sleep(self.dice.uniform(0.5, 4))
        filler.unlink()
        return True

    def intrude(self) -> bool:
        """A second process for a run that is under way; it must be refused, and say by whom."""
        runs = [run for run in self.unfinished() if (run.parent / ".locks" / run.name).exists()]
        if not runs:
            return False
        command = [sys.executable, "-c", SECOND, str(self.dice.choice(runs))]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if "already" in done.stdout:  # it ended just now
            return False
        if done.returncode != 1 or "writes there since" not in done.stderr:
            self.wrong.append(f"a second writer was not refused: {done.stdout[-200:]}{done.stderr[-200:]}")
        return True


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


SECOND = """
import sys, yaml
from pathlib import Path
from dyt.config import identity
from dyt.run import execute
run = Path(sys.argv[1])
made = yaml.safe_load((run / "config.yaml").read_text())
try:
    execute(identity.plan(made))
except ValueError as error:
    sys.exit(str(error))
"""


def read(path: Path) -> list[dict]:
    """A runs.csv without what the clock decides."""
    from dyt.studies.running.rows import TIMING

    if not path.is_file():
        return []
    with open(path, newline="") as stream:
        return [{k: v for k, v in row.items() if k not in TIMING} for row in csv.DictReader(stream)]


def curves(place: Path) -> dict[str, list[dict]]:
    """Rows of every metrics.jsonl, by run, without what the clock decides."""
    from dyt.tracking.metrics import read_metrics
    from dyt.training.loop import TIMING

    return {
        file.parent.name: [{k: v for k, v in row.items() if k not in TIMING} for row in read_metrics(file)]
        for file in sorted(place.glob("runs/default/*/metrics.jsonl"))
    }


def round_of(place: Path, left: Counter, dice: random.Random) -> dict:
    """Runs the study once, causing faults of the kinds that are `left`; returns what happened."""
    soak, caused = Soak(place, dice), Counter()
    soak.start()
    while True:
        kinds = [kind for kind in KINDS if left[kind] > caused[kind]]
        under_way = soak.advance(dice.randint(3, 25))
        if under_way and kinds:
            kind = dice.choice(kinds)
            if soak.cause(kind):
                caused[kind] += 1
                print(f"{sum(caused.values())} {kind}", flush=True)
        if soak.process.poll() == 0:
            break
        if soak.process.poll() is not None:
            if soak.starts > 20 + 3 * sum(left.values()):
                soak.wrong.append(f"started {soak.starts} times and not at its end")
                break
            soak.start()
    logs = [log.read_text(errors="replace") for log in place.glob("runs/.workers/*.log")]
    noticed = sum(text.count("checkpoint passed over") for text in logs)
    full = sum(text.count("could not be written") for text in logs)
    return {"caused": caused, "starts": soak.starts, "passed_over": noticed, "full": full, "wrong": soak.wrong}


def left_over(place: Path) -> list[str]:
    """Files that no run directory should have at the end."""
    found = [*place.rglob("*.part"), *place.glob("runs/default/.locks/*")]
    return sorted(str(f.relative_to(place)) for f in found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100, help="how many in all, as many of each kind (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="which faults when")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    if asked.faults < len(KINDS):
        parser.error(f"--faults {asked.faults}: at least {len(KINDS)}, one of each kind")
    from dyt.rundir.files import write_json
    from dyt.rundir.provenance import provenance
    from dyt.studies.showing.soak import PART

    dice, left = random.Random(asked.seed), Counter()
    for i in range(asked.faults):
        left[KINDS[i % len(KINDS)]] += 1
    wanted = dict(left)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dyt-soak-") as folder:
        calm = Soak(Path(folder) / "calm", dice)
        calm.start()
        if calm.process.wait():
            print("soak.py: the study fails even when nothing happens to it", file=sys.stderr)
            return 1
        rows, curve = read(calm.place / TABLE), curves(calm.place)
        disk = Path(folder) / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)], capture_output=True)
        if mounted.returncode:
            print(
                "soak.py: a disk that fills needs the right to mount; run it as root or in a container", file=sys.stderr
            )
            return 1
        rounds, differing = [], []
        try:
            while +left:
                place = disk / f"round-{len(rounds)}"
                rounds.append(round_of(place, left, dice))
                left -= rounds[-1]["caused"]
                theirs = curves(place)
                differing += [f"round {len(rounds)}: {what}" for what in rounds[-1]["wrong"]]
                differing += [f"round {len(rounds)}: runs.csv"] if read(place / TABLE) != rows else []
                differing += [f"round {len(rounds)}: {run}" for run in curve if theirs.get(run) != curve[run]]
                differing += [f"round {len(rounds)}: left over {file}" for file in left_over(place)]
                shutil.rmtree(place)
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
    import torch

    caused = sum((r["caused"] for r in rounds), Counter())
    report = {
        "faults": {kind: caused[kind] for kind in wanted},
        "total": caused.total(),
        "rounds": len(rounds),
        "starts": sum(r["starts"] for r in rounds),
        "checkpoints_passed_over": sum(r["passed_over"] for r in rounds),
        "writes_that_failed": sum(r["full"] for r in rounds),
        "runs_compared": len(rounds) * len(curve),
        "rows_compared": len(rounds) * sum(map(len, curve.values())),
        "differing": differing,
        "nothing_lost": not differing,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "seed": asked.seed,
        "provenance": provenance(torch.device("cpu"), 1),
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(asked.out, report)
    if asked.out == OUT:
        PART.write(ROOT / "results")
    print(json.dumps({k: v for k, v in report.items() if k != "provenance"}, indent=2))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
