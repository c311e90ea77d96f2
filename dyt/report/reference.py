"""docs/configuration.md: every key of the config with its meaning, default, unit and choices, read from where they are.

Meaning and unit are the comments of the dataclasses in dyt/config/compose.py and of the yaml files; choices and ranges
are those of dyt/config/check.py and of the signatures that the keys are arguments of. A comment is
``choices; [unit] meaning``, where choices (``byte | char | gpt2``) and unit may be absent.
"""

import importlib
import inspect
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path

import yaml

from dyt.config import check, compose

PAGE = compose.CONFIGS.parent / "docs" / "configuration.md"
SPLIT = re.compile(r"((?:[^;\[\]|]+ \| )+[^;\[\]|]+; |two numbers \| null; |text; )?(?:\[([^\]]+)\] ?)?(.*)")
WORDS = {
    int: "whole number",
    float: "number",
    bool: "true, false",
    str: "text",
    list: "list of numbers",
    type(None): "null",
}
# A model for each kind of run that has defaults of its own, in configs/optim/ and configs/trainer/.
KINDS = {
    "pictures": "vit_nano",
    "text": "gpt_nano",
    "diffusion": "dit_nano",
    "decision": "dt_nano",
    "DNA": "hyena_nano",
    "speech": "wav2vec2_nano",
}
UNSEEN = ("name", "kind")  # what an option calls itself, and the norm that it makes: not for the command line


@dataclass(frozen=True)
class Key:
    """One key as the page shows it."""

    name: str
    default: str
    takes: str
    unit: str
    meaning: str

    @property
    def line(self) -> str:
        return f"| `{self.name}` | {self.default} | {self.takes} | {self.unit} | {self.meaning} |"


def key_of(name: str, comment: str | None, default: str, hint=None) -> Key:
    """The key `name` with what its comment, check.py and its type `hint` say.

    Raises:
        ValueError: no meaning, a number without a unit, or choices in the comment that are not those of the code.
    """
    said, unit, meaning = SPLIT.fullmatch(comment or "").groups()
    if not meaning:
        raise ValueError(f"{name}: no comment says what it means; write it as '# [unit] meaning' where the key stands")
    listed = [c.strip() for c in (said or "").removesuffix("; ").split(" | ") if c.strip()]
    hints = _options(hint) if hint is not None else []
    literal = [str(c) for h in hints if typing.get_origin(h) is typing.Literal for c in typing.get_args(h)]
    choices = list(check.CHOICES.get(name, literal))
    words = [WORDS[typing.get_origin(h) or h] for h in hints if typing.get_origin(h) is not typing.Literal]
    if listed and choices and set(choices) != {c for c in listed if c not in ("null", "a number")}:
        raise ValueError(f"{name}: the comment offers {', '.join(listed)}, the code {', '.join(choices)}")
    if choices:
        words = [f"`{c}`" for c in choices] + [w for w in words if w != "text"]
    elif listed:
        words = [w if " " in w or w in WORDS.values() else f"`{w}`" for w in listed]
    low, high = check.RANGES.get(name, (None, None))
    numeric = any(w in ("whole number", "number", "a number", "list of numbers", "two numbers") for w in words)
    if numeric and not unit:
        raise ValueError(f"{name}: its comment has no [unit]")
    if not words:
        raise ValueError(f"{name}: nothing says what it takes; begin its comment with the choices, as 'a | b; meaning'")
    takes = ", ".join(words)
    if low is not None:
        tiny = 0 < low < 1e-6  # what stands for "above" in a table of inclusive bounds
        takes += "; above 0" if tiny else f"; {low} to {high:,}" if high is not None else f"; at least {low}"
    return Key(name, default, takes, unit or "-", plain(meaning))


def plain(text: str) -> str:
    """A comment as Markdown of a table's cell."""
    return text.replace("<", "&lt;").replace("|", "\\|")


def _options(hint) -> list:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return list(typing.get_args(hint)) if union else [hint]


def shown(value) -> str:
    """A value as it is typed."""
    if value == "???":
        return "must be given"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")
    return f"`{text}`"


def yaml_keys(file: Path) -> dict[str, tuple]:
    """``{key: (value, comment)}`` of a yaml file, its own values alone; ``diffusion.samples`` of a task's own keys."""
    text = file.read_text()
    comments = dict(re.findall(r"^ *(\w+):[^#\n]*?(?: +# (.*))?$", text, re.MULTILINE))
    found = {}
    for key, value in (yaml.safe_load(text) or {}).items():
        nested = {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        found |= {} if key == "defaults" else {k: (v, comments.get(k.rpartition(".")[2])) for k, v in nested.items()}
    return found


def header(file: Path) -> str:
    """The comment that a yaml file begins with, one line."""
    lines = file.read_text().splitlines()
    head = []
    for line in lines[1 if lines[0].startswith("# @package") else 0 :]:
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").strip())
    return plain(" ".join(head).partition(" Command:")[0])


def typed_keys(schema: type, group: str, started: dict[str, dict]) -> list[Key]:
    """The keys of a dataclass; `started` is what each kind of run has there, pictures first."""
    source = inspect.getsource(schema)
    comments = dict(re.findall(r"^    (\w+): .*?(?:  # (.*))?$", source, re.MULTILINE))
    keys = []
    for name, field in schema.__dataclass_fields__.items():
        if field.type is typing.Any or isinstance(field.type, type) and field.type.__module__ == schema.__module__:
            continue  # a group, with keys of its own
        kinds: dict[str, list[str]] = {}
        for kind, values in started.items():
            kinds.setdefault(shown(values[name]), []).append(kind)
        (default, _), *others = kinds.items()
        default += "".join(f"; {', '.join(of)} {value}" for value, of in others)
        keys.append(key_of(f"{group}{name}", comments.get(name), default, field.type))
    return keys


def data_hint(key: str, value):
    """The type of a key of ``data``, which has no signature: by check.py's lists, else by its value."""
    if key in check.TEXTS:
        return str | None
    if key in check.WHOLE:
        return int | None if value is None else int
    if f"data.{key}" in check.RANGES:
        return float
    return None if value is None or key in ("tokenizer", "interpolation") else type(value)


def table(keys: list[Key]) -> str:
    return "\n".join(
        ["| key | default | takes | unit | meaning |", "| --- | --- | --- | --- | --- |", *(k.line for k in keys)]
    )


def argument_keys(group: str, function, found: dict[str, tuple]) -> list[Key]:
    """The keys of a yaml file whose values are arguments of `function`."""
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    keys = []
    for name, (value, comment) in found.items():
        if name in ("task", "family", "reads"):
            hints.setdefault(name, str)
        task, dot, argument = name.partition(".")
        if dot:  # of the class that the task's `build` returns
            made = typing.get_type_hints(importlib.import_module(f"dyt.tasks.{task}").build)["return"]
            hints[name] = typing.get_type_hints(made.__init__)[argument]
        if name not in UNSEEN:
            keys.append(key_of(f"{group}.{name}", comment, shown(value), hints.get(name)))
    return keys


def norm_keys(configs: Path, name: str) -> dict[str, tuple]:
    """The keys of ``configs/norm/<name>.yaml``, its parents' included."""
    raw = yaml.safe_load((configs / "norm" / f"{name}.yaml").read_text())
    found: dict[str, tuple] = {}
    for parent in raw.get("defaults", []):
        found |= norm_keys(configs, parent) if parent != "_self_" else {}
    own = yaml_keys(configs / "norm" / f"{name}.yaml")
    return found | {k: (v, c or found.get(k, (None, None))[1]) for k, (v, c) in own.items()}


def options_table(base: Path) -> str:
    """A line for each option that rests on the file `base`: its name, what it says of itself, and what it sets.

    Raises:
        ValueError: an option says nothing of itself, or sets a key that `base` does not explain.
    """
    lines = ["| option | what it is | it sets |", "| --- | --- | --- |"]
    group, known = base.parents[1].name, yaml_keys(base)
    for file in sorted(base.parents[1].glob("*.yaml")):
        if f"base/{base.stem}@_here_" not in file.read_text():
            continue
        if not header(file):
            raise ValueError(f"configs/{group}/{file.name}: no comment at its head says what it is")
        own = yaml_keys(file)
        if unknown := [k for k in own if k not in known and k not in UNSEEN]:
            raise ValueError(
                f"{group}.{unknown[0]}: set in {file.name}, and base/{base.name} does not say what it means"
            )
        values = ", ".join(f"`{k}={shown(v)[1:-1]}`" for k, (v, _) in own.items() if k not in UNSEEN)
        lines.append(f"| [{file.stem}](../configs/{group}/{file.name}) | {header(file)} | {values or '-'} |")
    return "\n".join(lines)


def page(configs: Path = compose.CONFIGS) -> str:
    """The whole page.

    Raises:
        ValueError: a key without a meaning, a unit or choices; the line names it.
    """
    from dyt.norms import NORMS

    started = {kind: compose.load([f"model={model}"]) for kind, model in KINDS.items()}
    parts = [
        "# Configuration\n\n<!-- written by `python scripts/maintain/configuration.py` from code and yaml files; "
        "not by hand -->\n\n"
        "A run is `python train.py` and words: `group=option` picks a file of `configs/`, `key=value` sets one key. "
        "Later wins: files, then the recipe (`experiment=`), then the command line. An unknown key or a wrong value is "
        "refused at once, with what to type instead. `python train.py --cfg job norm=derf` prints the whole config and "
        "trains nothing. The first default is that of pictures; a kind of run that starts with another value is "
        "named with it. A unit and the words after it are read together: steps, between evaluations.",
        "## The run\n\n" + table(typed_keys(compose.Config, "", started)),
    ]
    for group, schema in (
        ("optim", compose.OptimConfig),
        ("trainer", compose.TrainerConfig),
        ("logger", compose.LoggerConfig),
        ("hardware", compose.HardwareConfig),
    ):
        keys = typed_keys(schema, f"{group}.", {kind: of[group] for kind, of in started.items()})
        parts.append(f"## {group}\n\n{schema.__doc__}\n\n{table(keys)}")
    parts.append(
        "## norm\n\n`norm=<option>`. Each argument can differ by site: `norm.sites.attn.alpha_init=0.8` sets it where "
        "attention is entered, and null (the default there) inherits. `norm.sites.attn.kind=layernorm` puts another "
        "norm there. Sites: "
        + ", ".join(f"`{s}`" for s in compose.SITES)
        + "; which of them a model has, it prints when it starts."
    )
    for file in sorted((configs / "norm").glob("*.yaml")):
        found = norm_keys(configs, file.stem)
        keys = argument_keys("norm", NORMS[found["kind"][0]], found)
        text = f"### {file.stem}\n\n{header(file)} ([file](../configs/norm/{file.name}))"
        parts.append(text + (f"\n\n{table(keys)}" if keys else ""))
    for group in ("model", "data"):
        bases = [f"base/{b.stem}@_here_" for b in (configs / group / "base").glob("*.yaml")]
        for file in (configs / group).glob("*.yaml"):
            if not any(base in file.read_text() for base in bases):
                raise ValueError(
                    f"configs/{group}/{file.name}: rests on no file of configs/{group}/base/, which explains keys"
                )
    parts.append("## model\n\n`model=<option>` picks a file that sets the keys of its family.")
    for base in sorted((configs / "model" / "base").glob("*.yaml")):
        written = yaml_keys(base)
        build = importlib.import_module(f"models.{written['family'][0]}").build
        keys = argument_keys("model", build, written)
        about = build.__doc__.strip().splitlines()[0]
        parts.append(f"### {base.stem}\n\n{about}\n\n{table(keys)}\n\n{options_table(base)}")
    parts.append("## data\n\n`data=<option>` picks a file; `data.path=` points any of them at a local file or folder.")
    for base in sorted((configs / "data" / "base").glob("*.yaml")):
        keys = [
            key_of(f"data.{k}", comment, shown(value), data_hint(k, value))
            for k, (value, comment) in yaml_keys(base).items()
        ]
        parts.append(f"### {base.stem}\n\n{table(keys)}\n\n{options_table(base)}")
    files = sorted((configs / "experiment").glob("*.yaml"))
    lines = ["| recipe | what it is |", "| --- | --- |"]
    lines += [f"| [{f.stem}](../configs/experiment/{f.name}) | {header(f)} |" for f in files]
    parts.append("## experiment\n\n`experiment=<option>`: a whole recipe.\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def differs() -> list[str]:
    """A line where the page is not what the code and the yaml files say."""
    if PAGE.is_file() and PAGE.read_text() == page():
        return []
    return [f"docs/{PAGE.name} is not what the code says; type python scripts/maintain/configuration.py"]
