"""W&B, a view of metrics.jsonl that cannot hurt a run; and which logger a run has."""

import configparser
import contextlib
import hashlib
import html
import json
import logging
import math
import netrc
import os
import sys
import time
from pathlib import Path

from dyt.config import variants
from dyt.config.identity import counted, flatten

log = logging.getLogger(__name__)
CLOUD = ("api.wandb.ai", "api.forge.coreweave.com")  # W&B's own server, by its old and its new name
PATIENCE = 8  # seconds that W&B may take to begin and to end a run; its service takes up to 12 more to go


def server() -> str:
    """The address of W&B's server as W&B finds it: WANDB_BASE_URL, what ``wandb login --host`` left, or the cloud."""
    own = os.environ.get("WANDB_BASE_URL")
    if not own:
        left = configparser.ConfigParser(interpolation=None)
        with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
            left.read(Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser() / "settings")
        own = left.get("default", "base_url", fallback=None)
    return (own or f"https://{CLOUD[0]}").rstrip("/")


def api_key() -> str | None:
    """The W&B key that is configured for this server: in the environment, or in the netrc file. Asks nothing."""
    if given := os.environ.get("WANDB_API_KEY"):
        return given
    host = server().split("//")[-1].split("/")[0]
    try:
        hosts = netrc.netrc(os.environ.get("NETRC") and Path(os.environ["NETRC"]).expanduser()).hosts
    except (OSError, netrc.NetrcParseError):
        return None
    return next((hosts[name][2] for name in (CLOUD if host in CLOUD else (host,)) if name in hosts), None)


def wandb_mode(mode: str) -> str:
    """``auto`` as online, offline or disabled; the WANDB_MODE variable wins over auto."""
    if mode != "auto":
        return mode
    asked = os.environ.get("WANDB_MODE", "").lower()
    if asked in ("online", "offline", "disabled"):
        return asked
    return "online" if api_key() else "offline"


def about_run(config: dict, folder: Path) -> dict:
    """What W&B shows a run under: variant, model, data and seed; its directory as notes; and a group, in which runs
    differ in their seed alone, so that curves average over seeds.
    """
    names = [config[part]["name"] for part in ("model", "norm", "data")]
    study = config["tag"] or config["experiment"]
    named = [variants.of_run(config), names[0], names[2]]
    return {
        "project": config["logger"]["project"],
        "entity": config["logger"]["entity"],
        "name": clipped(", ".join([*named, f"seed {config['seed']}"]), 128),
        "notes": folder.name,
        "group": clipped(f"{study}-{variant(config)}", 128),
        "job_type": "train",
        "tags": list(dict.fromkeys(clipped(name, 64) for name in (*names, study))),
    }


def variant(config: dict) -> str:
    """A run's name that others have only where they differ in the seed alone: ``DyT 0.5/1, lr 2e-3 (3f0c9a)``."""
    named = config.get("init_from") or ""  # words say which run; a path is of a seed's own directory
    alike = counted(config, "", named if "=" in named else str(bool(named)))
    del alike["seed"]
    digest = hashlib.sha256(json.dumps(alike, sort_keys=True).encode()).hexdigest()[:6]
    return f"{variants.of_run(config)}, {config['model']['name']}, {config['data']['name']} ({digest})"


def shown(config: dict, config_hash: str | None) -> dict:
    """What W&B's table of settings has of a run: its flat config, hash and variant, by which seeds are grouped."""
    return flatten(config) | {"config_hash": config_hash, "variant": variant(config)}


def clipped(text: str, most: int) -> str:
    """`text` in at most so many characters: W&B takes no run whose name or tag is longer. Other texts stay others."""
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    return text if len(text) <= most else f"{text[: most - 9]}-{mark}"


def short_summary(summary: dict) -> dict:
    """A run's ``summary.json`` as the few keys that W&B's run table shows."""
    short = {f"final/{k}": v for k, v in summary["final"].items()}
    short |= {f"best/{k}": v["value"] for k, v in summary["best"].items()}
    return short | {"status": summary["status"]}


def start_wandb(mode: str, folder: Path, run_id: str, config: dict, rows: list[dict], **about):
    """A W&B run, new or gone on with, that asks nothing and waits for no server longer than a few seconds.

    Args:
        mode: online or offline.
        folder: where W&B's own files go.
        rows: of this run until now; what the server has not got of them is sent.
    """
    import wandb

    if os.environ.get("WANDB_SWEEP_ID") and run_id != agents_id():
        leave_agent()
    run = wandb.init(
        mode=mode,
        dir=str(folder.resolve()),  # its service process may stand elsewhere
        id=run_id,
        resume="allow",
        config=config,
        reinit="finish_previous",
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=PATIENCE,
            finish_timeout=PATIENCE,
            finish_timeout_raises=True,
        ),
        **about,
    )
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    for row in rows:
        if row["step"] >= run.starting_step:
            send(run, row)
    return run


def send(run, row: dict) -> None:
    """One row, under our own step: a step that W&B has already it drops, so that nothing is there twice."""
    run.log({k: math.nan if v is None else v for k, v in row.items()}, step=row["step"])


def logger_of(config: dict, folder: Path, about: dict, rows: list[dict], start: int, alphas):
    """What a run logs to beside metrics.jsonl: W&B, or TensorBoard.

    Args:
        about: the run's ``run.json``.
        rows: of metrics.jsonl, up to step `start`.
        alphas: gives each layer's alpha.

    Raises:
        ValueError: a package is missing.
    """
    if config["logger"]["kind"] == "tensorboard":
        from dyt.tracking.tensorboard import TensorBoard

        return TensorBoard(folder, config, rows, start)
    mode, settings = config["logger"]["mode"], shown(config, about["config_hash"])
    return Wandb(mode, folder, about["wandb_id"], settings, rows, alphas, **about_run(config, folder))


def where(logger: dict) -> str:
    """A config's logger in words, for the lines that a run begins with."""
    if logger["kind"] == "tensorboard":
        return "TensorBoard" if logger["mode"] != "disabled" else "TensorBoard, disabled"
    return f"W&B, {wandb_mode(logger['mode'])}"


def new_id(hash: str) -> str:
    """A W&B id of this run's own."""
    return f"{hash}-{time.time_ns():x}"[:32]


def agents_id() -> str | None:
    """The id that ``wandb agent`` gave for what this process trains: one trial, one run."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def trial_of(logger: dict) -> str | None:
    """The agent's id for a run of this logger; None outside an agent, and where W&B gets nothing of the run."""
    sent = logger["kind"] == "wandb" and wandb_mode(logger["mode"]) != "disabled"
    return agents_id() if sent else None


def leave_agent() -> None:
    """From here on this process trains runs that are not the agent's trial: in a sweep W&B takes no id but that one."""
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        os.environ.pop(name, None)
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # it read them when it began


def report_to_agent(config: dict, folder: Path, summary: dict) -> None:
    """A finished run, for a ``wandb agent`` whose trial asked for it: its rows and summary under the trial's id.

    Outside an agent, and where W&B is not the logger, it does nothing.
    """
    run_id = trial_of(config["logger"])
    if run_id is None:
        return
    from dyt.tracking.metrics import read_metrics

    mode = wandb_mode(config["logger"]["mode"])
    trial = Wandb(mode, folder, run_id, shown(config, summary["config_hash"]), [], **about_run(config, folder))
    for row in read_metrics(folder / "metrics.jsonl"):
        trial.log(row)
    trial.finish(short_summary(summary), failed=False)


def rows_at_server(project: str, entity: str | None, run_id: str) -> tuple[int | None, int | None]:
    """(rows, step of the last one) that the server has of a run; (0, None): none; (None, None): it does not say."""
    import base64
    import urllib.request

    query = (
        "query RunResumeStatus($project: String, $entity: String, $name: String!) { model(name: $project, "
        "entityName: $entity) { bucket(name: $name, missingOk: true) { historyLineCount historyTail } } }"
    )
    about = {"project": project, "entity": entity, "name": run_id}
    body = json.dumps({"operationName": "RunResumeStatus", "query": query, "variables": about}).encode()
    try:
        sign = base64.b64encode(f"api:{api_key()}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {sign}"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{server()}/graphql", body, headers), timeout=PATIENCE
        ) as reply:
            bucket = (json.load(reply)["data"]["model"] or {}).get("bucket")
        if bucket is None or not bucket["historyLineCount"]:
            return 0, None
        return bucket["historyLineCount"], json.loads(json.loads(bucket["historyTail"])[-1])["_step"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None, None


class Wandb:
    """A W&B run that cannot hurt ours: the first failure is one warning, and from then on it is silent."""

    def __init__(self, mode: str, folder: Path, run_id: str, config: dict, rows: list[dict], alphas=dict, **about):
        self.run, self.url, self.alphas = None, None, alphas
        self.again = f"send it later with: python scripts/wandb_sync.py {folder}"
        mode = wandb_mode(mode)
        if mode == "disabled":
            return
        try:
            missing = rows if mode == "online" else []  # offline it cannot know what is there; wandb_sync.py can
            self.run = start_wandb(mode, folder, run_id, config, missing, **about)
            self.url = self.run.url if mode == "online" else None
        except Exception as error:  # wandb raises its own, requests' and OS errors alike
            self._warn(f"could not start {mode}", error)

    def _try(self, action) -> None:
        if self.run is None:
            return
        try:
            action()
        except Exception as error:
            self._warn("stopped working", error)
            self.run = None

    def _warn(self, what: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        log.warning("W&B %s (%s); training goes on and metrics.jsonl has all, %s", what, text, self.again)

    def log(self, row: dict) -> None:
        """A row; one with a validation also gets each layer's alpha, which costs no forward pass."""
        more = self.alphas() if self.run and any(key.startswith("val/") for key in row) else {}
        self._try(lambda: send(self.run, row | more))

    def finish(
        self,
        summary: dict,
        failed: bool,
        sample: str | None = None,
        picture: Path | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        """Ends the run: its summary, a language model's text, a task's picture, the checkpoint where asked for."""
        self._try(lambda: self.run.summary.update(summary))
        if sample is not None:
            self._try(lambda: self.run.log({"sample": as_html(sample)}))
        if picture is not None:
            self._try(lambda: self.run.log({"samples": as_image(picture)}))
        if checkpoint is not None and self.url:
            self._try(lambda: self.run.log_artifact(str(checkpoint), name=f"run-{self.run.id}", type="model"))
        self._try(lambda: self.run.finish(exit_code=1 if failed else 0))
        self.run = None


def as_image(picture: Path):
    """A picture as W&B media."""
    import wandb

    return wandb.Image(str(picture))


def as_html(text: str):
    """Text as W&B media that shows it as text."""
    import wandb

    return wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False)
