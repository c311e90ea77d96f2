"""What a composed config must hold beyond its types. Each refusal is one line that names the key."""

from dyt.config.arguments import closest, lookup
from dyt.config.identity import flatten
from dyt.config.ranges import DATA, refuse_numbers, within


def check(config: dict, schemas: dict[str, type]) -> None:
    """Raises for what types cannot say; `schemas` are the dataclasses of the root (key ``""``) and of each group.

    Raises:
        ValueError: one line with the key and what it takes.
    """
    for group, schema in schemas.items():
        names = [*schema.__dataclass_fields__, *([] if group else ["experiment"])]
        for key in config[group] if group else config:
            if key not in names:
                name = f"{group}.{key}" if group else key
                raise ValueError(f"{name}: unknown key; {closest(key, names)}keys: {', '.join(names)}")
    trainer, optim, data = config["trainer"], config["optim"], config["data"]
    for key, choices in (
        ("trainer.precision", ("fp32", "bf16")),
        ("trainer.device", ("auto", "cpu", "cuda")),
        ("trainer.kernel", ("auto", "reference", "compiled", "native", "triton")),
        ("logger.kind", ("wandb", "tensorboard")),
        ("logger.mode", ("auto", "online", "offline", "disabled")),
        ("resume", ("auto", "fresh")),
    ):
        value = lookup(config, key)
        if value not in choices:
            raise ValueError(f"{key}={value}: {closest(value, choices)}choose from {', '.join(choices)}")
    if data.get("on_error", "raise") not in ("raise", "skip"):
        raise ValueError(f"data.on_error={data['on_error']}: choose from raise, skip")
    if data.get("on_error") == "skip" and (data.get("mixup") or data.get("cutmix")):
        raise ValueError("data.on_error=skip: mixup and cutmix need whole batches; set both to 0, or mend the pictures")
    if trainer["max_steps"] is None and trainer["max_epochs"] is None:
        raise ValueError("trainer.max_steps and trainer.max_epochs are both null; set one, e.g. trainer.max_steps=1000")
    for key in ("batch_size", "eval_batch_size", "workers", "img_size", "patch_size", "train_tokens", "crop_padding"):
        value = data.get(key, 1)
        if key == "train_tokens" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"data.{key}={value}: needs a whole number")
    for key in ("out_root", "model.name", "norm.name", "data.name"):
        if not lookup(config, key) or not isinstance(lookup(config, key), str):
            raise ValueError(f"{key}={lookup(config, key)}: needs a word")
    for key in ("path", "cache_dir", "hub", "hub_config", "revision", "text_key", "image_key", "label_key", "encoding"):
        if data.get(key) is not None and not isinstance(data[key], str):
            raise ValueError(f"data.{key}={data[key]}: needs a text; quote it, e.g. 'data.{key}=\"{data[key]}\"'")
    at_least_one = (
        "max_steps",
        "eval_every",
        "eval_batches",
        "log_every",
        "save_every",
        "probe_every",
        "keep",
        "accumulate",
        "threads",
    )
    for key, value, low, high in (
        *((f"trainer.{k}", trainer[k], 1, 1024 if k == "threads" else None) for k in at_least_one),
        *((f"data.{k}", data.get(k), low, high) for k, (low, high) in DATA.items()),
        ("trainer.max_epochs", trainer["max_epochs"], 1e-9, None),
        ("trainer.save_patience", trainer["save_patience"], 0, None),
        ("trainer.ema_decay", trainer["ema_decay"], 0, 1),
        ("trainer.label_smoothing", trainer["label_smoothing"], 0, 1),
        ("optim.lr", optim["lr"], 0, None),
        ("optim.min_lr", optim["min_lr"], 0, None),
        ("optim.warmup_steps", optim["warmup_steps"], 0, None),
        ("optim.weight_decay", optim["weight_decay"], 0, None),
        ("optim.clip_grad", optim["clip_grad"], 1e-12, None),
        ("seed", config["seed"], 0, 2**31 - 1),
    ):
        if value is not None:
            within(key, value, low, high)
    if len(optim["betas"]) != 2 or not all(0 <= b < 1 for b in optim["betas"]):
        raise ValueError(f"optim.betas={optim['betas']}: needs two numbers from 0 to below 1, e.g. [0.9,0.95]")
    project = config["logger"]["project"]
    if len(project) > 128 or set(project) & set("/\\#?%:"):
        raise ValueError(
            f"logger.project={project}: W&B takes at most 128 characters, and it may not contain any of / \\ # ? % :"
        )
    refuse_numbers(flatten(config), config["model"]["task"])
