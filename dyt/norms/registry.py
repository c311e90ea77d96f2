"""The table that ``@register`` fills."""

NORMS: dict[str, type] = {}


def register(name: str):
    """Class decorator: makes a norm selectable as ``norm.kind=<name>``."""

    def add(cls):
        NORMS[name] = cls
        return cls

    return add
