"""Do Transformers need normalization? Dynamic Tanh and what it replaces, measured.

``from dyt import DynamicTanh, Derf, convert`` is the public interface. The names load on first use, so that
deciding "this run is already finished" costs no import of torch.
"""

_HOME = {  # name -> the module that has it
    "Derf": "dyt.norms.dynamic",
    "DynamicTanh": "dyt.norms.dynamic",
    "TrainerMixin": "dyt.training.optim",
    "add_embed_scale": "dyt.conversion",
    "advise": "dyt.conversion",
    "calibrate": "dyt.conversion",
    "conversion_report": "dyt.conversion",
    "convert": "dyt.conversion",
    "load_foreign": "dyt.conversion.foreign",
    "param_groups": "dyt.training.optim",
    "plan": "dyt.conversion",
    "revert": "dyt.conversion",
    "to_foreign": "dyt.conversion.foreign",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'dyt' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
