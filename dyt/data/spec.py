"""What a data set says of itself: all that models and summaries know of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """What a model and a summary need to know of a data set."""

    task: str  # image | text | episode | audio | genome | sequence
    sha256: str  # of its content
    sizes: dict[str, int]  # samples, or tokens, in each split
    classes: int = 0  # image, audio, sequence; of episodes the actions to choose from, 0 where an action is numbers
    channels: int = 0  # image
    vocab_size: int = 0  # text; letters of a genome or sequence
    names: tuple[str, ...] = ()  # of the classes
    states: int = 0  # numbers of a state; episodes
    actions: int = 0  # numbers of an action, one for each choice; episodes
    steps: int = 0  # of the longest episode
    rate: int = 0  # audio: samples a second
    shortest: int = 0  # audio: samples of the shortest recording; 0: not known


def frames_of(samples, kernels: list[int], strides: list[int]):
    """How many frames convolutions make of so many samples, a number or a tensor of them."""
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples
