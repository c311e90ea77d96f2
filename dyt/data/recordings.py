"""Recordings of every storage as samples from -1 to 1, one channel, at one rate: wav files, Parquet, or made here."""

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dyt.data.sources import Source, cache_dir

NO_PCM = "data.pcm_rate: type how many raw samples a second {column} of data.path={path} holds, e.g. data.pcm_rate=8000"


@dataclass
class Recordings:
    """One split: where its recordings are, and what they are called."""

    cells: list  # a path of a wav file, a wav file's bytes, or (rate, samples)
    labels: list | None = None
    speakers: list | None = None
    counts: np.ndarray | None = None  # samples of each, at the rate that the model gets
    place: str = ""  # for messages

    def __len__(self) -> int:
        return len(self.cells)

    def name(self, index: int) -> str:
        """How a message calls a recording."""
        cell = self.cells[index]
        return f"data.path={cell}" if isinstance(cell, Path) else f"{self.place}: recording {index}"

    def chosen(self, places: np.ndarray) -> "Recordings":
        """Some of them, in that order."""
        of = lambda values: None if values is None else [values[i] for i in places]  # noqa: E731
        counts = None if self.counts is None else self.counts[places]
        return Recordings(of(self.cells), of(self.labels), of(self.speakers), counts, self.place)

    def read(self, index: int, data: dict) -> np.ndarray:
        """``(samples,)`` float32 at ``data.sample_rate``.

        Raises:
            ValueError: no wav file, or samples that are no numbers; one line with its name.
        """
        rate, samples = _opened(self.cells[index], self.name(index), data)
        if samples.dtype.kind in "iu":
            low, high = (np.iinfo(samples.dtype).min, np.iinfo(samples.dtype).max)
            samples = (samples.astype(np.float32) - (low + high + 1) / 2) / ((high - low + 1) / 2)
        samples = samples.astype(np.float32)
        if not np.isfinite(samples).all():
            raise ValueError(f"{self.name(index)}: holds samples that are not finite")
        if samples.ndim == 2:
            samples = samples.mean(axis=1)
        if rate != data["sample_rate"]:
            from scipy.signal import resample_poly

            common = math.gcd(rate, data["sample_rate"])
            samples = resample_poly(samples, data["sample_rate"] // common, rate // common).astype(np.float32)
        return np.ascontiguousarray(samples)


def resampled(count: int, rate: int, to: int) -> int:
    """How many samples `count` of them are at another rate."""
    return -(-count * to // rate)


def samples_in(cell, name: str, data: dict) -> tuple[int, int]:
    """(rate, number of samples) of a recording; of a wav file only its head is read."""
    rate, samples = _opened(cell, name, data, head=True)
    return rate, len(samples)


def _opened(cell, name: str, data: dict, head: bool = False) -> tuple[int, np.ndarray]:
    if isinstance(cell, tuple):
        return cell
    from scipy.io import wavfile

    stream = cell if isinstance(cell, Path) else io.BytesIO(cell)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of chunks that hold no sound
            try:
                return wavfile.read(stream, mmap=head and isinstance(cell, Path))
            except ValueError:  # 24 bits cannot be mapped
                return wavfile.read(stream)
    except Exception as error:  # scipy raises what it likes on broken files
        text = " ".join(str(error).split())[:100] or type(error).__name__
        how = f"; make one: ffmpeg -i {cell.name} {cell.stem}-16bit.wav" if isinstance(cell, Path) else ""
        raise ValueError(f"{name}: no wav file that can be read ({text}){how}") from error


def recordings_of(data: dict, source: Source) -> dict[str, Recordings]:
    """What a source holds, by split.

    Raises:
        ValueError: unreadable, or a column is missing; one line with the key to set.
    """
    if source.builder in ("tones", "espeak"):
        from dyt.data import speech

        return speech.made(source.builder, cache_dir(data), source.sha256)
    place = f"data.path={data['path']}"
    if source.builder == "parquet":
        return {split: _of_parquet(files, data, place) for split, files in source.files.items()}
    return {
        split: Recordings([Path(f) for f in files], source.labels.get(split) or None, place=place)
        for split, files in source.files.items()
    }


def _of_parquet(files: list[str], data: dict, place: str) -> Recordings:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        tables = [pq.read_table(f) for f in files]
        table = pa.concat_tables(tables)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{place}: unreadable as parquet ({' '.join(str(error).split())[:120]})") from error
    usual = {"audio_key": ("audio", "pcm"), "label_key": ("label", "word"), "speaker_key": ("speaker", "speaker_id")}
    column = {}
    for key, names in usual.items():
        found = data[key] or next((n for n in names if n in table.column_names), None)
        if (data[key] or key == "audio_key") and found not in table.column_names:
            raise ValueError(f"data.{key}={found}: no such column; choose from {', '.join(table.column_names)}")
        column[key] = found
    cells = table.column(column["audio_key"]).to_pylist()
    cells = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
    if not all(isinstance(cell, bytes) for cell in cells):
        raise ValueError(f"data.audio_key={column['audio_key']}: holds no bytes of wav files or raw samples")
    if any(not cell.startswith(b"RIFF") for cell in cells[:10]):
        if data["pcm_rate"] is None:
            raise ValueError(NO_PCM.format(column=column["audio_key"], path=data["path"]))
        cells = [(data["pcm_rate"], np.frombuffer(cell, dtype="<i2", count=len(cell) // 2)) for cell in cells]
    labels, speakers = (
        [value for part in tables for value in _names(part, column[key], place)] if column[key] else None
        for key in ("label_key", "speaker_key")
    )
    return Recordings(cells, labels, speakers, place=place)


def _names(table, column: str, place: str) -> list:
    """A column's values; those of a ``ClassLabel`` as names, which other files may number otherwise."""
    import datasets

    values = table.column(column).to_pylist()
    feature = datasets.Features.from_arrow_schema(table.schema)[column]
    if not isinstance(feature, datasets.ClassLabel):
        return values
    if outside := [v for v in values if v is not None and v >= len(feature.names)]:
        raise ValueError(f"{place}: {column} holds the label {outside[0]}, and names {len(feature.names)} classes")
    return [None if v is None or v < 0 else feature.names[v] for v in values]
