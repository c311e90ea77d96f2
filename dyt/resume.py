"""Whether a run is finished already, and where one that is not goes on: its directory, ``init_from``, or scratch.

Nothing here imports torch before `where_to_start`: whether a run is finished must be known in a second.
"""

import shutil
from pathlib import Path

import yaml

from dyt.config.identity import Plan, counted, difference
from dyt.rundir.files import manifests, read_json, replace_file
from dyt.rundir.requeue import began_here

RESULTS = ("finished", "diverged")  # statuses that no further training changes


def finished(plan: Plan) -> dict | None:
    """The summary of a run that needs no more training, or None. Imports nothing heavy.

    Raises:
        ValueError: the directory was made by another config; the line shows the difference.
    """
    if _fresh(plan) or not plan.dir.exists():
        return None
    about = read_json(plan.dir / "run.json")
    if about is not None and (plan.dir / "config.yaml").is_file():
        theirs = counted(_config_of(plan.dir), about.get("data_sha256", ""), about.get("init_sha256"))
        ours = counted(plan.config, plan.data_sha256, plan.init_sha256)
        if theirs != ours:
            raise ValueError(
                f"{plan.dir} was made by another config ({difference(ours, theirs)}); "
                "set another out_root, or resume=fresh to move that directory aside"
            )
    summary = read_json(plan.dir / "summary.json")
    return summary if summary and summary.get("status") in RESULTS else None


def _fresh(plan: Plan) -> bool:
    """Whether what is in the directory counts for nothing."""
    return plan.config["resume"] == "fresh" and not began_here(plan.dir)


def _config_of(folder: Path) -> dict:
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise ValueError(f"{folder}: its config.yaml is damaged; type resume=fresh to move that directory aside")
    return config


def where_to_start(plan: Plan, loop) -> str:
    """Puts the loop where training goes on, and says where that is. In this order:

    1. ``resume=fresh``: the directory is moved aside, nothing is loaded; once, where SLURM starts the job again.
    2. The directory has a checkpoint that verifies: from there.
    3. ``init_from``: this run's shorter twin goes on; any other run gives its weights.
    4. From scratch.

    Raises:
        ValueError: there are checkpoints and none verifies, or ``init_from`` does not fit.
    """
    folder, start = plan.dir / "checkpoints", "from scratch"
    if _fresh(plan):
        if loop.world.leads:
            _move_aside(plan.dir)
        loop.world.wait()
    elif (found := _newest(folder, loop.world)) is not None:
        loop.load(found, str(plan.dir))
        start = f"resumed at step {loop.step}"
    elif manifests(folder, "step"):
        raise ValueError(f"{plan.dir}: no checkpoint there verifies; type resume=fresh to move it aside and start over")
    if plan.config["init_from"] and loop.step == 0:
        start = _take(plan, loop)
    return start


def _newest(folder: Path, world):
    """The newest checkpoint that verifies, or None; the leading process looks, and all take the same."""
    from dyt.rundir import checkpoint

    found = checkpoint.newest_of(folder, device=world.device) if world.leads else None
    chosen = world.shared(found and found.about)
    if world.leads or chosen is None:
        return found
    return checkpoint.opened(folder / chosen["file"], chosen, world.device)


def known_by_weights(plan: Plan, known: dict | None = None) -> dict | None:
    """What the weights of ``init_from`` know: their letters or classes are then this run's, each under its number.

    `known` says it of those that are still to be trained.

    Raises:
        ValueError: they know tokens of another kind.
    """
    config = plan.config
    if not config["init_from"]:
        return None
    from dyt.rundir.meaning import meaning

    known, kind = known or meaning(_source(plan)), config["data"].get("tokenizer")
    if config["model"]["task"] == "text" and kind is not None and known["kind"] not in (None, kind):
        raise ValueError(
            f"init_from={config['init_from']}: its weights know {known['kind']} tokens, and this run has {kind}; "
            f"type data.tokenizer={known['kind']}"
        )
    return known


def _take(plan: Plan, loop) -> str:
    """Takes ``init_from``: the whole state where it is this run, only shorter; else weights alone."""
    from dyt.rundir import checkpoint

    source, named = _source(plan), f"init_from={plan.config['init_from']}"
    if loop.conversion is not None:
        loop.before = loop.conversion(checkpoint.read_weights(str(source)), named)
        if loop.ema:
            loop.ema.set(loop.model)
        return f"weights of {source}, its norms converted ({plan.config['convert']})"
    found = _newest(source / "checkpoints", loop.world) if _is_shorter(plan, source) else None
    if found is None:
        loop.layout.load_weights(checkpoint.read_weights(str(source)), named)
        if loop.ema:
            loop.ema.set(loop.model)
        return f"weights of {source}"
    if found.plain["step"] >= loop.schedule.total:
        raise ValueError(f"{named} is at step {found.plain['step']} already; set trainer.max_steps above that")
    loop.load(found, named)
    # Its rows and its best weights come along, so that the extended run is whole.
    if loop.world.leads and not (plan.dir / "metrics.jsonl").exists():
        (plan.dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        best = (source / "checkpoints").glob("best-*")
        for file in sorted(best, key=lambda file: file.suffix == ".json"):  # manifests last: they say that it is whole
            there = plan.dir / "checkpoints" / file.name
            if file.is_dir():
                shutil.copytree(file, there, dirs_exist_ok=True)
            else:
                replace_file(there, lambda stream, file=file: stream.write(file.read_bytes()))
        rows = (source / "metrics.jsonl").read_bytes()  # and these last of all: that they are there says that all is
        replace_file(plan.dir / "metrics.jsonl", lambda stream: stream.write(rows))
    return f"extending {source} from step {loop.step}"


def _source(plan: Plan) -> Path:
    """Where the weights of ``init_from`` are."""
    return plan.base.dir if plan.base else Path(plan.config["init_from"]).expanduser()


def _is_shorter(plan: Plan, source: Path) -> bool:
    """Whether `source` is the directory of this run but for its length."""
    if plan.base:
        return False
    about = read_json(source / "run.json") if source.is_dir() else None
    if about is None or not (source / "config.yaml").is_file():
        return False
    free = ("trainer.max_steps", "trainer.max_epochs", "trainer.eval_every", "trainer.log_every")
    theirs = counted(_config_of(source), about.get("data_sha256", ""))
    ours = counted(plan.config, plan.data_sha256)
    return all(theirs.get(k) == ours.get(k) for k in theirs.keys() | ours.keys() if k not in free)


def _move_aside(folder: Path) -> None:
    """Renames a run directory to ``<name>.replaced-N``: starting over loses nothing."""
    if folder.exists():
        number = 1
        while (to := folder.with_name(f"{folder.name}.replaced-{number}")).exists():
            number += 1
        folder.rename(to)
        print(f"resume=fresh: the old run is now {to}")
