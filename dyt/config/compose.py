"""From a command line to a typed config: compose, check, plain dicts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dyt.config.check import check, check_conversion
from dyt.config.hydra_errors import one_line, refuse_null_groups
from dyt.config.identity import base_config
from dyt.config.values import as_typed, refuse_changed

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SITES = ("attn", "mlp", "final", "embed", "qk", "stem", "down", "conv")
DEFAULT_EXPERIMENT = "default"
PLURAL = {"audio": "recordings"}  # of kinds of data; images and texts take an s


@dataclass
class OptimConfig:
    """Linear warm-up and cosine decay; 1-D parameters (alpha, gamma, beta, biases) get no weight decay."""

    kind: str = "adamw"  # of the optimizer; muon: for the blocks' matrices, AdamW for the rest; sgd: momentum 0.9
    lr: float = 1e-3  # [ratio] highest learning rate, reached after the warm-up
    min_lr: float = 0.0  # [ratio] learning rate at which the cosine ends, one step after the last
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # [ratio] AdamW's two averages, e.g. [0.9,0.95]
    weight_decay: float = 0.05  # [ratio] of matrices only
    decay_gain: bool = False  # true: the norms' gamma gets weight decay too
    warmup_steps: int = 0  # [steps] the learning rate rises in a line over these
    clip_grad: float | None = None  # [gradient norm] larger gradients are scaled down to it; null: none is
    clip_each: bool = False  # true: by each tensor's own norm, as DINO's code does; false: by that of all together


@dataclass
class TrainerConfig:
    """The loop. It counts optimizer steps; max_epochs is converted once, and max_steps wins over it."""

    max_steps: int | None = None  # [steps] length of the run; null: max_epochs decides
    max_epochs: float | None = None  # [epochs] length of the run, where max_steps is null
    eval_every: int | None = None  # [steps] between evaluations; null: once an epoch. The last step is always evaluated
    eval_batches: int | None = None  # [batches] of an evaluation, evenly chosen (of texts the first); null: all
    log_every: int = 10  # [steps] between rows of metrics.jsonl
    save_every: int | None = None  # [steps] between checkpoints; null: at each evaluation
    probe_every: int | None = None  # [steps] between measurements of each norm's input, alpha, gradients; null: never
    save_patience: float = 600.0  # [seconds] that training goes on while nothing can be written
    keep: int = 2  # [checkpoints] the newest ones that are kept, beside the best
    accumulate: int = 1  # [pieces] a batch is computed in: less memory, the same curve
    micro_batch: int | None = None  # [samples] a process computes at once; accumulate then follows from it
    precision: str = "fp32"  # bf16 is autocast to bfloat16, weights stay in float32; double is for comparing
    strategy: str = "auto"  # how the model lies over processes: auto is whole in each, fsdp and hsdp shard it
    tp: int = 1  # [processes] that hold one GPT together, a part of every matrix in each
    checkpointing: str = "none"  # block, selective: activations are computed twice instead of kept; the same curve
    compile: bool = False  # torch.compile of the model
    device: str = "auto"  # auto takes a GPU where torch sees one
    threads: int | None = None  # [threads] of the CPU; null: torch's choice
    ema_decay: float | None = None  # [ratio] evaluates and exports the moving average of the weights; null: none
    label_smoothing: float = 0.0  # [share] of a label's weight that is spread over all classes
    dry_run: bool = False  # says what the run needs and costs, does two steps with a small model, and ends
    kernel: str = "auto"  # the form of DyT; auto: the fastest that runs here, reference: plain PyTorch


@dataclass
class HardwareConfig:
    """What a dry run (trainer.dry_run=true) reckons with. It changes no run."""

    kind: str = "auto"  # of the devices; auto: a GPU where torch sees one, else this machine's CPU, measured
    devices: int | None = None  # [devices] null: as many as processes
    utilisation: float = 0.4  # [share] of the peak arithmetic that training reaches; communication is in it
    price: float | None = None  # [dollars] of a device for an hour; null: an assumption, dyt/forecast/hardware.py


@dataclass
class LoggerConfig:
    """W&B or TensorBoard. W&B's auto: online when a key is configured, else offline; it never asks."""

    kind: str = "wandb"  # which one; metrics.jsonl is written in any case
    mode: str = "auto"  # of W&B; auto is online when a key is configured, else offline
    artifacts: bool = False  # the best checkpoint goes to W&B at the end, when online
    project: str = "dyt"  # W&B's project
    entity: str | None = None  # W&B's user or team; null: the account's own


@dataclass
class Config:
    """The whole config; model, norm and data are open here and checked against what they are arguments of."""

    model: Any = None
    norm: Any = None
    data: Any = None
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    seed: int = 0  # [number] decides first weights, order of samples, augmentation and dropout
    out_root: str = "runs"  # folder that run directories are made in
    deterministic: bool = False  # torch's deterministic algorithms only; needed on a GPU for equal bits
    init_from: str | None = None  # first weights: a run's directory or its words, or a safetensors file
    convert: str | None = None  # naive | reset | calibrated | null; how norms of init_from's run become this run's
    resume: str = "auto"  # auto goes on where the run's directory ends; fresh moves that directory aside
    tag: str | None = None  # groups runs in W&B; a study's runs have its name


def norm_arguments(name: str) -> dict:
    """The arguments of ``configs/norm/<name>.yaml`` with their values, its own defaults list followed."""
    raw = yaml.safe_load((CONFIGS / "norm" / f"{name}.yaml").read_text()) or {}
    arguments = {}
    for parent in raw.pop("defaults", []):
        arguments |= norm_arguments(parent) if isinstance(parent, str) and parent != "_self_" else {}
    return arguments | {k: v for k, v in raw.items() if k not in ("name", "kind")}


def register() -> None:
    """Puts the typed part of the config, and each norm's sites, where Hydra finds them."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for path in (CONFIGS / "norm").glob("*.yaml"):
        empty = dict.fromkeys(["kind", *norm_arguments(path.stem)])
        store.store(group="norm_sites", name=path.stem, node={"sites": {site: dict(empty) for site in SITES}})


register()


def load(overrides: list[str]) -> dict:
    """Composes overrides as ``train.py`` does. Returns plain dicts; key ``experiment`` names the recipe.

    Raises:
        ValueError: an unknown option or key, or a wrong type: one line that says what to type instead.
    """
    GlobalHydra.instance().clear()
    overrides = [as_typed(word) for word in overrides]
    refuse_null_groups(overrides, CONFIGS)
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = compose("train", overrides=overrides, return_hydra_config=True)
            config = plain(cfg, cfg.hydra.runtime.choices)
            refuse_changed(overrides, config)
            return config
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(one_line(error, overrides, CONFIGS)) from error


def plain(cfg, choices) -> dict:
    """A composed Hydra config as checked plain dicts."""
    choices = dict(choices)
    reads = cfg.model.get("reads") or cfg.model.task
    if cfg.data.task not in (reads, cfg.model.task):  # before interpolations, which would fail with less to say
        fitting = ", ".join(n for n in options("data") if option_task(n) == reads)
        raise ValueError(
            f"model={cfg.model.name} is for {PLURAL.get(reads, reads + 's')} and data={cfg.data.name} is "
            f"{PLURAL.get(cfg.data.task, cfg.data.task + 's')}; "
            f"choose data from {fitting}"
        )
    config = OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"]), resolve=True, throw_on_missing=True
    )
    config["experiment"] = choices.get("experiment") or DEFAULT_EXPERIMENT
    for group in ("model", "norm", "data", "experiment"):
        if choices.get(group) not in options(group) and not (group == "experiment" and choices.get(group) is None):
            raise ValueError(f"{group}={choices.get(group)}: choose from {', '.join(options(group))}")
    groups = {"trainer": TrainerConfig, "optim": OptimConfig, "logger": LoggerConfig, "hardware": HardwareConfig}
    check(config, {"": Config, **groups})
    if config["convert"]:  # known to be possible before the run that it starts from is trained
        named = base_config(config)
        check_conversion(config, named and named[0], norm_arguments)
    return config


def options(group: str) -> list[str]:
    """The names that ``group=`` takes: the files of ``configs/<group>/``."""
    return sorted(p.stem for p in (CONFIGS / group).glob("*.yaml"))


def option_source(name: str) -> str:
    """``files``, ``stdlib``, ...: where the samples of ``data=<name>`` come from."""
    found = {}
    for file in (CONFIGS / "data" / "base" / f"{option_task(name)}.yaml", CONFIGS / "data" / f"{name}.yaml"):
        found |= yaml.safe_load(file.read_text())
    return found["source"]


def option_task(name: str) -> str | None:
    """``image`` or ``text``: what ``data=<name>`` holds."""
    raw = yaml.safe_load((CONFIGS / "data" / f"{name}.yaml").read_text())
    for parent in raw.get("defaults", []):
        if isinstance(parent, str) and parent.startswith("base/"):
            return parent.removeprefix("base/").removesuffix("@_here_")
    return raw.get("task")
