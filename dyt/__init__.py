"""Do Transformers need normalization? Dynamic Tanh and what it replaces, measured.

``from dyt import DynamicTanh, Derf, convert`` is the public interface. The names load on first use, so that
deciding "this run is already finished" costs no import of torch.
"""

__all__ = ["Derf", "DynamicTanh", "conversion_report", "convert", "plan", "revert"]


def __getattr__(name: str):
    if name in ("Derf", "DynamicTanh"):
        from dyt.norms import dynamic

        return getattr(dynamic, name)
    if name in ("conversion_report", "convert", "plan", "revert"):
        from dyt import conversion

        return getattr(conversion, name)
    raise AttributeError(f"module 'dyt' has no attribute {name!r}")
