"""One line of help for a wrong argument, read from the signature that the argument is for."""

import difflib
import inspect
import types
import typing


def closest(word: str, choices) -> str:
    """``did you mean 'dyt'? `` when one of the choices is near, else nothing."""
    names = {str(c).lower(): str(c) for c in choices}
    near = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.5)
    return f"did you mean {names[near[0]]!r}? " if near else ""


def lookup(config: dict, key: str, default=None):
    """``lookup(config, "optim.lr")``."""
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return default
        config = config[part]
    return config


def accepts(function, name: str) -> bool:
    """Whether `function` (or a class's constructor) takes an argument of this name."""
    return name in inspect.signature(function).parameters


def check_arguments(function, values: dict, where: str) -> None:
    """Checks names and types of keyword `values` against the signature of `function`.

    Raises:
        ValueError: ``norm.squash='tan': choose from tanh, hardtanh, ...`` and the like; `where` is the config key.
    """
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    known = [p for p in inspect.signature(function).parameters]
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{where}.{name}: unknown key; {closest(name, known)}keys: {', '.join(known)}")
        if name in hints and not _fits(value, hints[name]):
            raise ValueError(f"{where}.{name}={value}: {_wanted(hints[name])}")


def _options(hint) -> tuple:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _fits(value, hint) -> bool:
    for option in _options(hint):
        if typing.get_origin(option) is typing.Literal:
            if value in typing.get_args(option):
                return True
        elif option is float:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return True
        elif option is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return True
        elif isinstance(value, typing.get_origin(option) or option):
            return True
    return False


def _wanted(hint) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "null"}
    parts, choices = [], []
    for option in _options(hint):
        if typing.get_origin(option) is typing.Literal:
            choices += [str(c) for c in typing.get_args(option)]
        else:
            parts.append(names.get(option, str(option)))
    text = "choose from " + ", ".join(choices) if choices else ""
    return " or ".join(([text] if text else []) + ([("" if text else "needs ") + " or ".join(parts)] if parts else []))
