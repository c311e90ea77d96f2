"""The pictures of docs/explained.md, drawn from the token that `explain.measure` kept."""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np

from dyt.rundir.files import replace_file
from dyt.studies.showing.explain import ALPHAS, COMMAND, LARGE, SMALL, steps, token

BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#9a9a9a"
NORMS = (
    ("LayerNorm, RMSNorm", "one token, all channels"),
    ("instance norm", "one sentence, one channel"),
    ("batch norm", "all sentences, one channel"),
)


def draw(results: Path, folder: Path) -> None:
    """Writes layernorm.png, averages.png, batch.png and alpha.png into `folder`; each says which token it shows."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        for name, made in FIGURES.items():
            figure = made(plt, results)
            about = {"Software": None, "Description": _told(results)}
            replace_file(folder / f"{name}.png", partial(figure.savefig, format="png", dpi=110, metadata=about))
            plt.close(figure)


def differs(results: Path, folder: Path) -> list[str]:
    """A line for each picture that is not of the token in `results`."""
    from PIL import Image

    wrong = []
    for name in FIGURES:
        file, told = folder / f"{name}.png", None
        if file.is_file():
            with Image.open(file) as picture:
                told = picture.text.get("Description")
        if told != _told(results):
            wrong.append(f"docs/img/{name}.png does not show what results/ says; type {COMMAND} --draw")
    return wrong


def _told(results: Path) -> str:
    return "token " + hashlib.sha256(token(results).to_csv(float_format="%.6g").encode()).hexdigest()


def _layernorm(plt, results: Path):
    """The token before and after LayerNorm: the same shape on another scale."""
    rows = token(results)
    made = steps(*(rows[c].to_numpy() for c in ("x", "gamma", "beta")))
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, values, colour, title in ((axes[0], made[0][2], BLUE, "before"), (axes[1], made[4][2], RED, "after")):
        axis.plot(values, ".", ms=3, color=colour)
        mean, spread = values.mean(), values.std()
        axis.axhline(mean, color="black", lw=1)
        axis.axhspan(mean - spread, mean + spread, color=colour, alpha=0.12, lw=0)
        axis.set_title(f"{title}: mean {round(mean, 2) + 0.0:.2f}, standard deviation {spread:.2f}", fontsize=10)
        axis.set(xlabel="channel, 1 to 768", ylabel="value")
    return figure


def _averages(plt, results: Path):
    """Which numbers share one mean: sentences of different lengths side by side, places across, channels down."""
    lengths, channels = (7, 4, 6), 5
    places = max(lengths)
    figure, axes = plt.subplots(len(NORMS), 1, figsize=(7, 6.4), layout="constrained")
    for axis, (name, over) in zip(axes, NORMS, strict=True):
        for s, length in enumerate(lengths):
            for place in range(places):
                for channel in range(channels):
                    shared = {
                        "LayerNorm, RMSNorm": s == 0 and place == 2,
                        "instance norm": s == 0 and channel == 1,
                        "batch norm": channel == 1,
                    }[name]
                    pad = place >= length
                    left = s * (places + 1) + place
                    face = RED if shared else "white"
                    box = plt.Rectangle((left, -channel), 0.92, 0.92, fc=face, ec=GREY, lw=0.6)
                    axis.add_patch(box)
                    if pad:
                        axis.add_patch(
                            plt.Rectangle((left, -channel), 0.92, 0.92, fc="none", ec="black", lw=0, hatch="//////")
                        )
            axis.text(s * (places + 1) + places / 2, 1.25, f"sentence {s + 1}", ha="center", fontsize=8)
        axis.set(xlim=(-0.8, len(lengths) * (places + 1) - 0.5), ylim=(-channels - 0.9, 2.2), aspect="equal")
        axis.set_title(f"{name}: {over}", fontsize=10)
        axis.text(places / 2, -channels - 0.1, "places →", ha="center", fontsize=8)
        axis.text(-0.25, -channels / 2 + 0.9, "channels", rotation=90, va="center", ha="right", fontsize=8)
        axis.axis("off")
    figure.supxlabel("coloured: the numbers that share one mean and one spread; hatched: padding", fontsize=9)
    return figure


def _batch(plt, results: Path):
    """By how much the 768 numbers differ between a batch of 10 and one of 50."""
    rows = token(results)
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for kind, name, colour in (("batchnorm", "batch norm", RED), ("layernorm", "LayerNorm", BLUE)):
        a, b = rows[f"{kind}, {SMALL}"], rows[f"{kind}, {LARGE}"]
        axis.plot(a, b - a, ".", ms=4, color=colour, label=name)
    axis.set(xlabel=f"value in a batch of {SMALL} sentences", ylabel=f"change in a batch of {LARGE}")
    axis.set_title("The 768 numbers of one token: what the other sentences change", fontsize=10)
    axis.legend(fontsize=9)
    axis.grid(alpha=0.25)
    return figure


def _alpha(plt, results: Path):
    """tanh(alpha x) for some alphas over where the token's numbers lie, beside LayerNorm's line."""
    rows = token(results)
    x = rows["x"].to_numpy()
    normal = steps(*(rows[c].to_numpy() for c in ("x", "gamma", "beta")))[4][2]
    at = np.linspace(x.min(), x.max(), 400)
    figure, (axis, below) = plt.subplots(
        2, 1, figsize=(7, 4.8), height_ratios=(4, 1), sharex=True, layout="constrained"
    )
    for alpha, colour in zip(ALPHAS, plt.cm.viridis(np.linspace(0.05, 0.85, len(ALPHAS))), strict=True):
        axis.plot(at, np.tanh(alpha * at), color=colour, lw=2, label=f"tanh({alpha:g} x)")
    ends = np.array([x.min(), x.max()])
    axis.plot(
        ends, np.interp(ends, np.sort(x), np.sort(normal)), color=RED, lw=1.2, ls="--", label="LayerNorm, this token"
    )
    axis.set(ylabel="what comes out", ylim=(-1.6, 1.6), title="alpha is how soon the curve bends")
    axis.legend(fontsize=8, loc="upper left")
    axis.grid(alpha=0.25)
    below.hist(x, bins=60, color=GREY)
    below.set(xlabel="x: what comes in", ylabel="of 768")
    return figure


FIGURES = {"layernorm": _layernorm, "averages": _averages, "batch": _batch, "alpha": _alpha}
