"""Hydra's and OmegaConf's paragraphs as one line that says what to type instead."""

import re
import shlex
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dyt.config.arguments import closest
from dyt.config.values import quoted

WANTED = {  # OmegaConf's words for a value of the wrong type -> what to give
    "is not a valid bool": "true or false",
    "could not be converted to Integer": "a whole number",
    "could not be converted to Float": "a number",
}


def one_line(error: Exception, overrides: list[str], configs: Path) -> str:
    """Hydra's paragraphs as one line with the valid choices."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        names = [o for o in error.options if not o.endswith("/")] if error.options else []
        more = "; joblib and submitit need pip install -e '.[cluster]'" if group == "hydra/launcher" else ""
        return f"{group}={option}: unknown; {closest(option, names)}choose from {', '.join(sorted(names))}{more}"
    for override in overrides:
        line = _wrong_key(override, overrides, configs)
        if line:
            return line
    if found := re.search(r"already at '([^']+)'", str(error)):
        known = next((o for o in overrides if o.startswith(f"+{found[1]}=")), f"+{found[1]}")
        return f"{known}: that key is there; leave out the +"
    parts = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    key = getattr(error, "full_key", None) or getattr(cause, "full_key", None)
    text = (str(cause).splitlines()[0] if isinstance(cause, OmegaConfBaseException) else None) or parts[0]
    text = text.replace(f"field '{key}' is not Optional", "needs a value").split("\n")[0]
    for words, what in WANTED.items():
        if key and (value := re.match(rf"Value '(.*?)'(?: of type '\w+')? {words}", text)):
            return f"{key}={value[1]}: needs {what}"
    return f"{key}: {text}" if key and key not in text else text


def refuse_null_groups(overrides: list[str], configs: Path) -> None:
    """Raises ValueError for ``norm=null``, of which Hydra's own error does not name the key."""
    for override in overrides:
        group, _, value = override.partition("=")
        if value == "null" and group == "experiment":
            raise ValueError(f"{override}: leave it out, no recipe is what you get without it")
        if value == "null" and group and (configs / group).is_dir():
            names = ", ".join(sorted(p.stem for p in (configs / group).glob("*.yaml")))
            raise ValueError(f"{override}: choose from {names}")


def _wrong_key(override: str, overrides: list[str], configs: Path) -> str | None:
    """The line for an override whose key does not exist, with the keys that do."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        name, equals, value = override.partition("=")
        what = f"type {shlex.quote(f'{name}={quoted(value)}')}" if equals and value else "type key=value"
        return f"{override}: {str(error).splitlines()[0]}; {what}"
    if parsed.is_sweep_override():
        return f"{override}: several values are a sweep; add -m"
    key = parsed.key_or_group
    if key.startswith("hydra.launcher.") and not any(o.startswith("hydra/launcher=") for o in overrides):
        return f"{override}: of which launcher? Add hydra/launcher=slurm"
    groups = [p.name for p in configs.iterdir() if p.is_dir()]
    if parsed.is_add() or parsed.is_delete() or "/" in key or key in groups:
        return None
    chosen = [o for o in overrides if o.partition("=")[0] in groups and o != override]
    try:
        with initialize_config_dir(str(configs), version_base="1.3"):
            cfg = compose("train", overrides=chosen)
    except (HydraException, OmegaConfBaseException):
        return None
    node, done = cfg, []
    for part in key.split("."):
        if not OmegaConf.is_config(node) or part not in node:
            where = ".".join(done)
            if not OmegaConf.is_config(node):
                return f"{key}: {where} is a single value, with no keys below it"
            names = [str(k) for k in node] + ([] if done else ["experiment"])
            of = next((f" of {o}" for o in chosen if o.partition("=")[0] == where), f" of {where}" if where else "")
            return f"{key}: unknown key; {closest(part, names)}keys{of}: {', '.join(names)}"
        node = node._get_node(part)
        node = node if OmegaConf.is_config(node) else None
        done.append(part)
    return None
