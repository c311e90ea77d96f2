"""What a data set says of itself: all that models and summaries know of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """What a model and a summary need to know of a data set."""

    task: str  # image | text
    sha256: str  # of its content
    sizes: dict[str, int]  # samples, or tokens, in each split
    classes: int = 0  # image
    channels: int = 0  # image
    vocab_size: int = 0  # text
    names: tuple[str, ...] = ()  # of the classes
