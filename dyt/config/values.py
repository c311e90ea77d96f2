"""Override values as they were typed: text stays text, 1e4 is a whole number, and nothing is read as something else.

Hydra reads ``tag=2024_01`` as the number 202401 and ``data.path=a,b.txt`` as a sweep. Words are therefore quoted for it
where their key is text, and after composing what the config holds is compared with what was typed.
"""

import decimal
import re
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException

from dyt.config.arguments import lookup

PATHS = set("out_root init_from data.path data.cache_dir".split())
TEXTS = PATHS | set(
    "tag logger.project logger.entity data.hub data.hub_config data.revision data.image_key data.label_key "
    "data.text_key data.encoding data.name model.name norm.name model.timm_name".split()
)
WHOLE = set(
    "seed hardware.devices trainer.max_steps trainer.eval_every trainer.eval_batches trainer.log_every "
    "trainer.save_every trainer.probe_every trainer.keep trainer.accumulate trainer.micro_batch trainer.tp "
    "trainer.threads optim.warmup_steps data.batch_size data.eval_batch_size data.workers data.img_size "
    "data.patch_size data.train_tokens data.vocab data.crop_padding model.dim model.depth model.heads model.kv_heads "
    "model.mlp_dim model.context model.vocab_size model.img_size model.patch_size".split()
)
FLOAT = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,2})?")


def quoted(text: str) -> str:
    """`text` as Hydra reads it back: in quotes, with the quotes in it escaped."""
    inner = re.sub(r"(\\*)'", r"\1\1\\'", text)
    tail = len(inner) - len(inner.rstrip("\\"))
    return f"'{inner}{chr(92) * tail}'"


def as_typed(word: str, sweep: bool = False) -> str:
    """An override such that Hydra gives its key the value that was typed.

    Raises:
        ValueError: the value is empty, or the key would be deleted; one line with the word to type.
    """
    if word.startswith("~"):
        raise ValueError(f"{word}: a key cannot be removed; type {word[1:].partition('=')[0]}=null where it can be off")
    name, equals, raw = word.partition("=")
    key = name.lstrip("+")
    if raw == "None" and ("." in key or key in TEXTS | WHOLE):
        raise ValueError(f"{word}: type {name}=null")
    if not equals or key not in TEXTS | WHOLE:
        return word
    if key in WHOLE:
        return f"{name}={','.join(map(_whole, raw.split(',')))}" if "(" not in raw else word
    if sweep and not (key in PATHS and Path(raw).expanduser().exists()):
        parts = re.split(r",(?=(?:[^'\"]|'[^']*'|\"[^\"]*\")*$)", raw)
        calls = re.fullmatch(r"(choice|sort|shuffle|glob)\(.*\)", raw)
        return word if calls else f"{name}={','.join(_text(key, part) for part in parts)}"
    return f"{name}={_text(key, raw)}"


def _whole(raw: str) -> str:
    """``1e4`` as ``10000``; what is no whole number stays as it is."""
    if FLOAT.fullmatch(raw) and not raw.lstrip("+-").isdigit():
        value = decimal.Decimal(raw)
        return str(int(value)) if value == value.to_integral_value() else raw
    return raw


def _text(key: str, raw: str) -> str:
    if not raw:
        raise ValueError(f"{key}=: needs a word or null; it is empty, as where a shell variable is not set")
    if raw.lower() == "null" or (len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "'\""):
        return raw
    try:
        parsed = OverridesParser.create().parse_override(f"{key}={raw}")
        if not parsed.is_sweep_override() and parsed.value() == raw:
            return raw
    except HydraException:
        pass
    return quoted(raw)


def refuse_changed(overrides: list[str], config: dict) -> None:
    """Compares what was typed with what `config` holds; interpolations and whole groups are left out.

    Raises:
        ValueError: a value was read as something else, such as ``trainer.compile=1`` as true.
    """
    for word in {word.partition("=")[0].lstrip("+"): word for word in overrides}.values():
        parsed = OverridesParser.create().parse_override(word)
        key, typed = parsed.key_or_group, parsed.value()
        if isinstance(typed, QuotedString):
            typed = typed.text
        held = lookup(config, key, missing := object())
        if held is missing or isinstance(held, dict) or (isinstance(typed, str) and "${" in typed):
            continue
        if not _same(typed, held):
            raise ValueError(f"{word}: would be read as {held!r}; {_instead(held)}")


def _same(typed, held) -> bool:
    if isinstance(typed, QuotedString):
        typed = typed.text
    if isinstance(typed, list | tuple) and isinstance(held, list):
        return len(typed) == len(held) and all(map(_same, typed, held))
    if isinstance(typed, dict):
        return True
    if isinstance(typed, bool) != isinstance(held, bool) or isinstance(typed, str) != isinstance(held, str):
        return False
    return typed == held or (typed != typed and held != held)


def _instead(held) -> str:
    if isinstance(held, bool):
        return "type true or false"
    return "type a number" if isinstance(held, int | float | list) else "quote it, so that it stays a text"
