"""Whether the weights that a run starts from fit it, told before anything is trained."""

from pathlib import Path

from dyt.config.identity import Plan
from dyt.resume import known_by_weights

HEADS = ("heads", "kv_heads", "decoder_heads")  # which the shapes of weights do not tell


def refuse_other_heads(plan: Plan) -> None:
    """Weights of ``init_from`` that were cut into other heads: their shapes would fit, and mean something else.

    Raises:
        ValueError: one line with the key.
    """
    from dyt.rundir.meaning import read_config

    source = Path(plan.config["init_from"] or "nowhere").expanduser()
    if plan.base is None and not (source / "config.yaml").is_file():
        return
    ours, theirs = plan.config["model"], (plan.base.config if plan.base else read_config(source))["model"]
    for key in HEADS:
        here, there = (_heads(model, key) for model in (ours, theirs))
        if None not in (here, there) and here != there:
            raise ValueError(
                f"model.{key}={here}: the weights of init_from are of {there}, in matrices of the same shape; "
                f"type model.{key}={there}"
            )


def _heads(model: dict, key: str) -> int | None:
    """Of a model that says nothing: timm's own heads, as many for keys as for queries."""
    count = model.get(key)
    if count is None and key in model and key == "kv_heads":
        return model["heads"]
    if count is None and key == "heads" and "timm_name" in model:
        import timm
        import torch

        with torch.device("meta"):
            blocks = getattr(timm.create_model(model["timm_name"]), "blocks", ())
        return next((block.attn.num_heads for block in blocks if hasattr(block, "attn")), None)
    return count


def refuse_unfit(plan: Plan) -> None:
    """What the weights of ``plan.base`` would be refused for once it is trained, told before it is.

    Raises:
        ValueError, OSError: as `dyt.run.prepare` and `checkpoint.load_weights`.
    """
    import torch

    from dyt.rundir import checkpoint
    from dyt.tasks import build_task, refuse_unread
    from models import build_model

    config, base = plan.config, plan.base.config
    theirs = _opened(plan.base)
    alike = config["data"] == base["data"] and config["model"].get("context") == base["model"].get("context")
    data = theirs if alike else _opened(plan)
    refuse_unread(build_task(config, data.spec.classes), config)
    converted = config.get("convert")
    model = base["model"] if converted else config["model"]
    try:
        with torch.device("meta"):
            first, _ = build_model(base["model"], base["norm"], theirs.spec)
            taken, _ = build_model(model, base["norm"] if converted else config["norm"], data.spec)
            new = build_model(config["model"], config["norm"], data.spec)[0] if converted else taken
    except (RuntimeError, MemoryError, OverflowError, AssertionError, TypeError, ZeroDivisionError):
        return  # said when it is built in earnest
    weights = checkpoint.encoder_of(first.state_dict(), taken.state_dict())
    checkpoint.load_weights(taken, weights, f"init_from={config['init_from']}")
    if converted:
        swap_of(taken, new, converted)


def _opened(plan: Plan):
    """A run's data as it will know them, be the run that it starts from trained or not."""
    from dyt.data import open_data
    from dyt.rundir.meaning import told
    from dyt.tasks import build_task

    known = None
    if plan.base:
        first, config = _opened(plan.base), plan.base.config
        tokenizer = first.tokenizer.to_json() if hasattr(first, "tokenizer") else None
        kept = build_task(config, first.spec.classes).knows_classes
        known = told(tokenizer, list(first.spec.names) if kept else None)
    return open_data(plan.config["data"], plan.config["model"].get("context"), known_by_weights(plan, known))


def swap_of(old, model, how: str):
    """The norms of `model` that are to stand in `old`, a `Swap`.

    Raises:
        ValueError: there is none.
    """
    from dyt.conversion.calibrate import Swap

    swap = Swap.of(old, model)
    if not swap.pairs:
        raise ValueError(f"convert={how}: every norm is as in the run of init_from; leave convert out")
    return swap
