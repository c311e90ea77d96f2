"""Which numbers a key takes: finite ones, and from where to where."""

import math

MODEL = {  # whole numbers, the upper ends far above what any machine holds
    "dim": (1, 1 << 20),
    "depth": (1, 1 << 14),
    "heads": (1, 1 << 16),
    "kv_heads": (1, 1 << 16),
    "mlp_dim": (1, 1 << 24),
    "context": (1, 1 << 26),
    "vocab_size": (1, 1 << 26),
    "conv_dim": (1, 1 << 20),
    "position_kernel": (1, 1 << 16),
    "position_groups": (1, 1 << 16),
    "code_groups": (1, 16),
    "codes": (2, 1 << 16),
    "vector_dim": (1, 1 << 20),
    "output_dim": (1, 1 << 20),
    "img_size": (1, 1 << 16),
    "patch_size": (1, 1 << 16),
}
BELOW_1 = math.nextafter(1, 0)
NORM = {"eps": (0, None), "momentum": (0, 1)}  # other numbers of a norm: any finite one


def refuse_numbers(flat: dict, task: str) -> None:
    """Checks a flat config's model, norm and data numbers, that every number is finite and every text one.

    Raises:
        ValueError: one line with the key and what it takes.
    """
    for key, value in flat.items():
        group, _, name = key.partition(".")
        if group == "model" and name in MODEL and value is not None:
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{key}={value}: needs a whole number")
            within(key, value, *MODEL[name])
        if group == "norm" and (last := name.rpartition(".")[2]) in NORM and value is not None:
            within(key, value, *NORM[last])
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, float) and not math.isfinite(part):
                raise ValueError(f"{key}={value}: needs a finite number")
            if isinstance(part, str):
                _text(key, part)
    if task == "image":
        _channels(flat)


def within(key: str, value, low: float, high: float | None) -> None:
    """Raises ValueError unless `value` is a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key}={value}: needs a number")
    if not math.isfinite(value):
        raise ValueError(f"{key}={value}: needs a finite number")
    if not (low <= value and (high is None or value <= high)):
        bounds = "above 0" if 0 < low < 1e-6 else f"at least {low:g}"
        bounds += "" if high is None else " and below 1" if high == BELOW_1 else f" and at most {high:g}"
        raise ValueError(f"{key}={value}: must be {bounds}")


def _text(key: str, value: str) -> None:
    if not value:
        raise ValueError(f"{key}=: needs a word or null; it is empty, as where a shell variable is not set")
    if value == "None":
        raise ValueError(f"{key}=None: type {key}=null")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{key}={ascii(value)}: holds bytes that are no text; rename that file or folder")


def _channels(flat: dict) -> None:
    """Mean and deviation of each colour channel, and the crop's share of the area."""
    for key in ("data.mean", "data.std"):
        value = flat[key]
        numbers = isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
        if not numbers or len(value) not in (1, 3):
            raise ValueError(f"{key}={value}: needs one number (grey) or three (colour), e.g. {key}=[0.5]")
    if len(flat["data.mean"]) != len(flat["data.std"]):
        raise ValueError(f"data.mean={flat['data.mean']} and data.std={flat['data.std']}: need equally many numbers")
    if min(flat["data.std"]) <= 0:
        raise ValueError(f"data.std={flat['data.std']}: must be above 0, pixels are divided by it")
    if isinstance(scale := flat["data.scale"], list):
        if len(scale) != 2 or not all(isinstance(v, int | float) for v in scale) or not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"data.scale={scale}: needs two shares of the area, rising, e.g. [0.08,1.0]")
