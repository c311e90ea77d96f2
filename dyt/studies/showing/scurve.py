"""The S-curves: input against output of trained LayerNorms, before gamma and beta, with the best-fitting tanh.

Points come from the runs' checkpoints where those are, and are kept, thinned, in ``samples.parquet`` beside the figure,
so that it can be drawn where the runs are gone.
"""

from functools import partial
from pathlib import Path

import pandas as pd

from dyt.rundir.files import replace_file
from dyt.studies.judging.cells import Rows
from dyt.studies.running.study import Study

LAYERS = 4  # shown per setting: first, last, and two between
TOKENS, CHANNELS = 24, 24  # points per layer: whole tokens, so that each one's straight line shows


def samples(folder: Path) -> list[dict]:
    """``{layer, token, x, y}`` of a run's last checkpoint, for the layers that are shown."""
    import torch

    from dyt.run import assemble
    from dyt.rundir import checkpoint
    from dyt.rundir.meaning import meaning, read_config
    from dyt.training.distributed import join
    from dyt.training.probe import Probe

    config = read_config(folder)
    found = checkpoint.newest(folder / "checkpoints", device="cpu")
    if found is None:
        return []
    world = join("cpu")
    data, model, factory, task = assemble(config, world, config["seed"], meaning(folder))
    checkpoint.load_weights(model, found[0]["model"], str(folder))
    seen = Probe(model, factory.made, task, data, world).inputs_and_outputs()
    names = list(seen)
    shown = [names[round(i * (len(names) - 1) / (LAYERS - 1))] for i in range(LAYERS)]
    points = []
    generator = torch.Generator().manual_seed(0)
    for layer in dict.fromkeys(shown):
        x, y = (part.flatten(0, -2) for part in seen[layer])  # (tokens, C)
        tokens = torch.randperm(len(x), generator=generator)[:TOKENS]
        for token in tokens.tolist():
            # The ends of the line matter most: the largest, the smallest, and some between.
            order = x[token].argsort()
            channels = order[torch.linspace(0, len(order) - 1, min(CHANNELS, len(order))).long()]
            points += [
                {"layer": layer, "token": token, "x": x[token, c].item(), "y": y[token, c].item()}
                for c in channels.tolist()
            ]
    return points


def collect(about: Rows, folder: Path, folders: dict) -> pd.DataFrame:
    """Points of each setting's first seed; from runs, else from what is kept."""
    file = folder / "samples.parquet"
    kept = pd.read_parquet(file) if file.is_file() else pd.DataFrame(columns=["setting", "layer", "token", "x", "y"])
    frames = []
    for setting in dict.fromkeys(r.get("setting") or "" for r in about.rows):
        row = min((r for r in about.rows if (r.get("setting") or "") == setting), key=lambda r: r["seed"])
        place = folders[row["config_hash"]][0]
        if (place / "checkpoints").is_dir() and not (kept["setting"] == setting).any():
            frames.append(pd.DataFrame(samples(place)).assign(setting=setting))
        else:
            frames.append(kept[kept["setting"] == setting])
    found = pd.concat([f for f in frames if len(f)], ignore_index=True) if any(len(f) for f in frames) else kept
    found = found.astype({"x": "float32", "y": "float32"})
    replace_file(file, lambda out: found.to_parquet(out, compression="zstd", index=False))
    return found


def draw(study: Study, about: Rows, folder: Path, folders: dict) -> None:
    """Writes figure.png: a row per setting, a column per layer; a colour per token."""
    import matplotlib.pyplot as plt
    import numpy as np
    import torch

    from dyt.training.probe import best_line, best_tanh

    points = collect(about, folder, folders)
    settings = list(dict.fromkeys(points["setting"]))
    figure, axes = plt.subplots(
        max(1, len(settings)),
        LAYERS,
        figsize=(3.6 * LAYERS, 3.4 * max(1, len(settings))),
        layout="constrained",
        squeeze=False,
    )
    for line, setting in zip(axes, settings, strict=True):
        part = points[points["setting"] == setting]
        layers = list(dict.fromkeys(part["layer"]))
        for axis, layer in zip(line, layers, strict=False):
            of_layer = part[part["layer"] == layer]
            for token, group in of_layer.groupby("token"):
                axis.plot(group["x"], group["y"], ".-", ms=2, lw=0.5, alpha=0.7, color=plt.cm.viridis(token % 24 / 24))
            x = torch.from_numpy(of_layer["x"].to_numpy().copy())
            y = torch.from_numpy(of_layer["y"].to_numpy().copy())
            r2, a, b = best_tanh(x, y)
            at = np.linspace(x.min().item(), x.max().item(), 200)
            axis.plot(at, a * np.tanh(b * at), color="#D55E00", lw=2, label=f"{a:.3g} tanh({b:.3g} x), R² {r2:.3f}")
            axis.set_title(f"{setting}: {layer}\nbest line: R² {best_line(x, y):.3f}", fontsize=9)
            axis.legend(fontsize=7, loc="upper left")
            axis.grid(alpha=0.25)
            axis.set(xlabel="input", ylabel="output, before gamma and beta")
        for axis in line[len(layers) :]:
            axis.set_visible(False)
    figure.suptitle(f"{study.name}: trained LayerNorms, one line per token (first seed)", fontsize=11)
    replace_file(folder / "figure.png", partial(figure.savefig, format="png", dpi=100))
    plt.close(figure)
