"""Data: pictures and hub sets through Hugging Face ``datasets``, texts of files and recordings as they are.

A data set offers `spec` (what a model must know of it), `train_batches` and `eval_batches`. Which samples make step n
is a function of (seed, n) alone, so a resumed run sees exactly what it would have seen.
"""

from dyt.data.spec import Spec

__all__ = ["Spec", "open_data"]


def open_data(data: dict, context: int | None = None, known: dict | None = None):
    """The data set of a config's ``data`` part.

    `context` is a language model's, in tokens; `known` what a trained model's inputs and outputs mean: its ``chars``
    and the names of its ``classes`` (dyt/rundir/meaning.py).

    Raises:
        ValueError, OSError: it is missing, empty or unreadable; one line with the key to set.
    """
    known = known or {}
    if data["task"] == "image":
        from dyt.data.images import ImageData

        return ImageData(data, known.get("classes"))
    if data["task"] == "episode":
        from dyt.data.episodes import EpisodeData

        return EpisodeData(data, context)
    if data["task"] == "audio":
        from dyt.data.audio import AudioData

        return AudioData(data, known.get("classes"))
    if data["task"] == "genome":
        from dyt.data.genome import GenomeData

        return GenomeData(data, context)
    if data["task"] == "sequence":
        from dyt.data.sequences import SequenceData

        return SequenceData(data, context, known.get("classes"))
    if data["source"] == "shards":
        from dyt.data.tokens import ShardData

        return ShardData(data, context, known.get("kind"))
    from dyt.data.text import TextData

    return TextData(data, context, known.get("chars"))
