"""Train one model: ``python train.py model=vit_tiny norm=dyt seed=1``; many: ``python train.py -m norm=layernorm,dyt``.

The same command again resumes the run, or says that it is finished. Exit codes: 0 finished, already done or diverged
(a result); 1 bad input or failed; 75 interrupted. A sweep: 75 if interrupted, else 1 if any run failed, else 0.
"""

import itertools
import logging
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import hydra
from hydra._internal.utils import get_args
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.types import RunMode

from dyt.config import compose, identity
from dyt.config.values import as_typed, quoted
from dyt.run import execute
from dyt.rundir.files import read_json, write_json
from dyt.rundir.processes import place, speaks
from dyt.rundir.requeue import hear_all, requeue, seen
from dyt.rundir.streams import STOPS, heard, steady

CODES = {"finished": 0, "dry run": 0, "diverged": 0, "failed": 1, "interrupted": 75}


def preflight(overrides: list[str], sweep: bool) -> dict:
    """Checks a command line before Hydra sees it; in a sweep, every value of every key. Returns the (first) config.

    Raises:
        ValueError: one line that says what to type instead.
    """
    if not sweep:
        return _load(overrides)
    choices = []
    for text in overrides:
        try:
            parsed = OverridesParser.create().parse_override(text)
        except Exception:
            compose.load([text])  # says what is wrong with it
            raise
        key = parsed.get_key_element()
        if isinstance(parsed.value(), Glob):
            values = parsed.value().filter(compose.options(key))
            if not values:
                raise ValueError(f"{text}: matches nothing; choose from {', '.join(compose.options(key))}")
        else:
            values = _swept(text, parsed) if parsed.is_sweep_override() else []
        choices.append([f"{key}={v}" for v in values] or [text])
    first = [c[0] for c in choices]
    config = _load(first)
    for i, values in enumerate(choices):
        for value in values[1:]:
            _load([*first[:i], value, *first[i + 1 :]])
    return config


def _load(overrides: list[str]) -> dict:
    """`compose.load`, which also refuses a length that another one hides: it would be a second run of the same."""
    config = compose.load(overrides)
    typed = {word.lstrip("+").partition("=")[0]: word for word in overrides}
    epochs, steps = typed.get("trainer.max_epochs"), config["trainer"]["max_steps"]
    if epochs and steps is not None and "trainer.max_steps" not in typed and not epochs.endswith("=null"):
        raise ValueError(f"{epochs}: trainer.max_steps={steps} would win; add trainer.max_steps=null")
    return config


def _swept(text: str, parsed) -> list[str]:
    """The values of a sweep over one key.

    Raises:
        ValueError: they cannot be listed (``interval(0,1)``), or are very many.
    """
    try:
        values = list(itertools.islice(parsed.sweep_string_iterator(), 10_001))
    except Exception as error:  # Hydra raises its own, TypeError and ValueError
        raise ValueError(
            f"{text}: has no values to list; type them: {parsed.key_or_group}=1,2 or range(1,9)"
        ) from error
    if len(values) > 10_000:
        raise ValueError(f"{text}: more than 10,000 runs; type fewer values")
    return values


def run_one(cfg) -> dict:
    """Runs a composed config. Never raises: what went wrong is in the status, so that a sweep goes on."""
    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    outcome = {"overrides": " ".join(overrides), "status": "failed", "run": None}
    if _stopped():
        return outcome | {"status": "not started"}
    if hydra_config.mode == RunMode.MULTIRUN:
        if hydra_config.job.num and "WANDB_SWEEP_ID" in os.environ:
            from dyt.tracking.wandb import leave_agent

            leave_agent()  # its trial is the first member; the others are runs of their own
        print(f"\n--- run {hydra_config.job.num}: {outcome['overrides']}", flush=True)
    try:
        config = compose.plain(cfg, hydra_config.runtime.choices)
        plan = identity.plan(config, overrides)
        outcome["run"] = str(plan.dir)
        summary = execute(plan)
        outcome |= {"status": summary["status"], "final": summary["final"]}
    except (ValueError, OSError) as error:
        refuse(error)
        outcome["why"] = str(error)
    except KeyboardInterrupt:
        outcome["status"] = "interrupted"
    except Exception as error:
        if speaks():
            traceback.print_exc()
        outcome["why"] = f"{type(error).__name__}: {error}"
    return outcome


def refuse(error: Exception) -> None:
    """Says what is wrong in one line; of several processes, one does."""
    if speaks():
        if os.environ.get("DYT_TRACEBACK"):
            traceback.print_exc()
        print(f"train.py: {' '.join(str(error).split())}", file=sys.stderr)


def _outcomes() -> list[dict]:
    """What became of each run so far, in the sweep's order."""
    folder = Path(os.environ["DYT_OUTCOMES"])
    return [read_json(file) for file in sorted(folder.glob("*.json"))]


def _stopped() -> bool:
    """Whether a run of this process was stopped by hand: then it begins no other."""
    return any(o["status"] == "interrupted" and o["process"] == os.getpid() for o in _outcomes())


@hydra.main(config_path="configs", config_name="train", version_base="1.3")
def job(cfg) -> None:
    """Hydra's part: one call a run, in this process or a launcher's, on any machine. Outcomes travel by file."""
    hear_all()
    outcome = run_one(cfg)
    of_submitit = "SUBMITIT_EXECUTOR" in os.environ
    if outcome["status"] == "interrupted" and of_submitit:
        requeue()
    if place().rank == 0 or not of_submitit:  # whose processes share the folder; others have each their own
        number = HydraConfig.get().job.get("num", 0) if HydraConfig.get().mode == RunMode.MULTIRUN else 0
        write_json(Path(os.environ["DYT_OUTCOMES"]) / f"{number:06d}.json", outcome | {"process": os.getpid()})


def _shared(out_root: str) -> tempfile.TemporaryDirectory:
    """Where the runs of a sweep leave word: beside the runs, which a cluster's machines share."""
    home = Path(out_root).expanduser().absolute() / ".sweep"
    home.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=home, prefix="outcomes-")


def table(outcomes: list[dict]) -> str:
    """Statuses of a sweep, a line a run."""
    rows = [("status", "val/loss", "val/top1", "overrides")]
    for o in outcomes:
        final = o.get("final") or {}
        cells = [f"{final[k]:.4f}" if final.get(k) is not None else "-" for k in ("val/loss", "val/top1")]
        rows.append((o["status"], *cells, o["overrides"] or "(defaults)"))
    widths = [max(len(r[i]) for r in rows) for i in range(3)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[3]]) for r in rows)


def refuse_launcher(words: list[str], sweep: bool) -> None:
    """Raises ValueError for a launcher where Hydra would not use it: without -m the run would start here."""
    found = next((w for w in words if w.startswith(("hydra/launcher=", "hydra.launcher."))), None)
    if found and not sweep:
        raise ValueError(f"{found}: a launcher takes sweeps only; add -m")


def _interrupt(number, frame):
    seen.add(number)
    raise KeyboardInterrupt


def main() -> int:
    with steady():  # what is printed cannot end a run
        return _main()


def _main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    for number in (signal.SIGINT, *filter(heard, STOPS)):  # before and between runs; in a run the loop handles them
        signal.signal(number, _interrupt)
    asked = get_args()  # Hydra's own parser, so that its flags are not listed here again
    sweep = asked.multirun
    if sweep and (place().size > 1 or "WORLD_SIZE" in os.environ):
        print("train.py: torchrun and -m do not go together; run the sweep's commands one by one", file=sys.stderr)
        return 1
    try:
        typed = {word: as_typed(word, sweep) for word in asked.overrides}
        sys.argv[1:] = [typed.get(word, word) for word in sys.argv[1:]]
        roots = [w.partition("=")[2].strip("'\"") for w in typed.values() if w.startswith("out_root=")] if sweep else []
        homes = [Path(root).expanduser() / ".sweep" for root in roots if root.startswith("~")]
        sys.argv += [f"hydra.sweep.dir={quoted(str(home))}" for home in homes]
        refuse_launcher(list(typed), sweep)
        config = preflight(list(typed.values()), sweep)
    except (ValueError, OSError) as error:
        refuse(error)
        return 1
    if asked.help or asked.hydra_help or asked.cfg or asked.info or asked.shell_completion:
        job()
        return 0
    remote = sweep and any(word.startswith("hydra/launcher=") for word in typed)
    with _shared(config["out_root"]) if remote else tempfile.TemporaryDirectory() as folder:
        os.environ["DYT_OUTCOMES"] = folder
        interrupted = False
        try:
            job()
        except KeyboardInterrupt:
            interrupted = True
        outcomes = _outcomes()
    statuses = [o["status"] for o in outcomes]
    if sweep:
        print("\n" + table(outcomes))
    elif outcomes and outcomes[0]["run"] and statuses[0] not in ("failed", "dry run") and place().rank == 0:
        print(outcomes[0]["run"])
    if interrupted or "interrupted" in statuses:
        requeue()
        return 75
    return max((CODES.get(s, 1) for s in statuses), default=1)


if __name__ == "__main__":
    sys.exit(main())
