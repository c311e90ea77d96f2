"""What an encoder of sound knows: linear probes of its frames' means, held against log-mel features; and a picture.

A probe is scikit-learn's logistic regression on standardised features, learned from training recordings and measured on
those of a split. One layer's means are its features, chosen within training: four fifths learn, the last tells.

    top1_label        recordings named rightly, of speakers that the probe knows
    top1_label_new    the same of a speaker that the probe never heard, the mean over speakers
    top1_speaker      speakers told rightly
    ..._all           of all layers' means side by side, in place of one layer's
    ..._mel           of the mean log-mel spectrum, in place of the encoder
"""

import colorsys

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

BANDS, WINDOW, HOP = 40, 0.025, 0.010  # of log-mel features; [seconds]
ROWS = 6  # recordings shown


def mel_bands(rate: int, size: int) -> Tensor:
    """``(BANDS, size // 2 + 1)``: triangles evenly spaced in mel (HTK's formula) from 60 Hz to half the rate."""
    mel = lambda hz: 2595 * np.log10(1 + hz / 700)  # noqa: E731
    edges = 700 * (10 ** (np.linspace(mel(60), mel(rate / 2), BANDS + 2) / 2595) - 1)
    bins = np.linspace(0, rate / 2, size // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.from_numpy(np.maximum(0, np.minimum(rising, falling))).float()


def log_mel(waves: Tensor, rate: int) -> Tensor:
    """Natural log of the mel spectrum's power, ``(B, BANDS, frames)``; frame i is centred on i times 10 ms."""
    size, hop = int(WINDOW * rate), int(HOP * rate)
    window = torch.hann_window(size, device=waves.device)
    power = torch.stft(waves.float(), size, hop, window=window, return_complex=True).abs().square()
    return (mel_bands(rate, size).to(waves.device) @ power + 1e-6).log()


def _means(frames: Tensor, counts: Tensor) -> Tensor:
    """Over each recording's own frames, ``(B, C)``."""
    heard = torch.arange(frames.shape[1], device=frames.device) < counts[:, None]
    return (frames.float() * heard[..., None]).sum(dim=1) / counts[:, None]


@torch.no_grad()
def features(model: nn.Module, data, split: str, frames, most: int, device: torch.device) -> tuple:
    """Which recordings of a split, at most so many, each layer's mean frames ``(N, C)``, and mean log-mel features."""
    rate, layers, mels = data.spec.rate, [], []
    chosen, batches = data.evenly(split, most)
    for (waves, lengths), _ in batches:
        waves, lengths = waves.to(device), lengths.to(device)
        counts = frames(lengths)
        layers.append([_means(layer, counts).cpu() for layer in model(waves, lengths)])
        mels.append(_means(log_mel(waves, rate).transpose(1, 2), 1 + lengths // int(HOP * rate)).cpu())
    return chosen, [torch.cat(parts).numpy() for parts in zip(*layers, strict=True)], torch.cat(mels).numpy()


def classifier():
    """Standardised features, logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _score(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> float:
    if len(np.unique(y)) < 2:
        return float((test_y == y[0]).mean())
    return float(classifier().fit(x, y).score(test_x, test_y))


def best_layer(layers: list[np.ndarray], y: np.ndarray) -> int:
    """The one whose probe, learned from four fifths of the rows, names most of every fifth row."""
    if len(y) < 2:
        return len(layers) - 1
    told = np.arange(len(y)) % 5 == min(4, len(y) - 1)
    return int(np.argmax([_score(x[~told], y[~told], x[told], y[told]) for x in layers]))


def probed(model: nn.Module, data, split: str, frames, most: int, device: torch.device) -> dict[str, float]:
    """The metrics of this file's head; those without labels or speakers in `data` are left out.

    Args:
        model: called as ``model(waves, lengths)`` it gives a list of layers.
        data: an audio set.
        split: that is measured.
        frames: how many frames so many samples make.
        most: recordings of a split that are looked at, evenly chosen.
        device: of the model.
    """
    if not data.labels:
        return {}
    (rows, layers, mels), (test_rows, test_layers, test_mels) = (
        features(model, data, part, frames, most, device) for part in ("train", split)
    )
    found, whole, test_whole = {}, np.concatenate(layers, axis=1), np.concatenate(test_layers, axis=1)
    for name, of in data.labels.items():
        y, test_y = of["train"][rows], of[split][test_rows]
        at = best_layer(layers, y)
        read_from = (("", layers[at], test_layers[at]), ("_all", whole, test_whole), ("_mel", mels, test_mels))
        for ending, x, test_x in read_from:
            found[f"top1_{name}{ending}"] = _score(x, y, test_x, test_y)
            if name == "label" and "speaker" in data.labels:
                speakers = data.labels["speaker"]
                known, tested = speakers["train"][rows], speakers[split][test_rows]
                found[f"top1_label_new{ending}"] = _new_speakers(x, y, known, test_x, test_y, tested)
    return {name: value for name, value in found.items() if value is not None}


def _new_speakers(x, y, known, test_x, test_y, tested) -> float | None:
    """Each speaker's recordings named by a probe that learned from all others; None where there are no others."""
    new = [one for one in np.unique(tested) if (known != one).any()]
    named = [_score(x[known != one], y[known != one], test_x[tested == one], test_y[tested == one]) for one in new]
    return float(np.mean(named)) if named else None


def picture_of(waves: Tensor, ids: Tensor) -> Image.Image:
    """Spectra of some recordings, time to the right and low notes below, and under each the codes of its frames.

    Args:
        waves: ``(B, L)``.
        ids: ``(B, T)``, the codes; -1 where a recording has ended. Each code has a colour.
    """
    waves, ids = waves[:ROWS].float().cpu(), ids[:ROWS].cpu().numpy()
    size = 128
    power = torch.stft(waves, size, size // 4, window=torch.hann_window(size), return_complex=True).abs().square()
    level = (power + 1e-3).log()
    level = (level - level.amin()) / (level.amax() - level.amin())
    sheets = []
    for spectrum, codes in zip((255 * level).byte().numpy(), ids, strict=True):
        grey = np.repeat(spectrum[::-1, :, None], 3, axis=2)  # (bins, frames, 3)
        hues = np.array([_colour(int(code)) for code in codes], dtype=np.uint8)[None]
        strip = Image.fromarray(hues).resize((grey.shape[1], 10), Image.Resampling.NEAREST)
        sheets += [grey, np.asarray(strip), np.full((3, grey.shape[1], 3), 255, dtype=np.uint8)]
    picture = Image.fromarray(np.concatenate(sheets[:-1]))
    return picture.resize((3 * picture.width, picture.height), Image.Resampling.NEAREST)


def _colour(code: int) -> tuple[int, int, int]:
    """A colour of its own for a code, by steps of the golden ratio; white for none."""
    if code < 0:
        return 255, 255, 255
    colour = colorsys.hsv_to_rgb(0.618034 * code % 1, 0.55 + 0.2 * (code % 3), 0.9)
    return tuple(round(255 * part) for part in colour)
