"""What a data set says of itself: all that models and summaries know of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """What a model and a summary need to know of a data set."""

    task: str  # image | text | genome | sequence
    sha256: str  # of its content
    sizes: dict[str, int]  # samples, or tokens, in each split
    classes: int = 0  # image, sequence
    channels: int = 0  # image
    vocab_size: int = 0  # text; letters of a genome or sequence
    names: tuple[str, ...] = ()  # of the classes
