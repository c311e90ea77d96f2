"""README's picture, ``docs/img/front.png``: what a GPT is fed decides how DyT does. From the study embed_scale."""

from pathlib import Path

from dyt.rundir.files import replace_file
from dyt.studies.running.rows import read_runs
from dyt.studies.running.study import Study, result_folder
from dyt.studies.showing import marked
from dyt.studies.showing.styles import COLOURS
from dyt.studies.showing.table import asked
from dyt.studies.statistics import interval

# Words, cell, and whose colour.
LINES = (
    ("DyT, embeddings of std 0.02 (GPT-2)", ("dyt-0.5", "none", "0.02"), "dyt"),
    ("DyT, std 0.02 and a learned scalar", ("dyt-0.5", "learned", "0.02"), "dyt"),
    ("DyT, std 1/sqrt(d) and the scalar", ("dyt-0.5", "learned", "1/sqrt(d)"), "dyt"),
    ("LayerNorm, std 0.02 (GPT-2)", ("layernorm", "none", "0.02"), "layernorm"),
    ("LayerNorm, std 1/sqrt(d), no scalar", ("layernorm", "none", "1/sqrt(d)"), "layernorm"),
)


def picture() -> Path:
    return marked.ROOT / "docs" / "img" / "front.png"


def lines(results: Path) -> list[tuple[str, str, list[float]]]:
    """Words, colour and final losses by seed of each line of the picture."""
    study = Study("embed_scale")
    about = asked(study, "small", read_runs(result_folder(results, study.name, "small") / "runs.csv", study))
    found = []
    for words, levels, norm in LINES:
        values = about.values(dict(zip(("norm", "scalar", "std"), levels, strict=True))).values()
        found.append((words, COLOURS[norm], [v for v in values if v is not None]))
    return found


def _told(results: Path) -> str:
    """The picture's numbers, which the file itself names, so that a check needs no drawing."""
    return "; ".join(f"{words}: {' '.join(f'{v:.4f}' for v in values)}" for words, _, values in lines(results))


def draw(results: Path, path: Path) -> None:
    """Final loss by what a GPT is fed: a point a seed, and the mean with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = lines(results)
    figure, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
    for i, (_, colour, values) in enumerate(shown):
        found = interval(values)
        if found.mean is None:  # not run, or every seed diverged
            continue
        half = 0.0 if found.low is None else (found.high - found.low) / 2
        axis.plot(values, [i] * len(values), "o", color=colour, alpha=0.35, ms=6, mew=0)
        axis.errorbar(found.mean, i, xerr=half, fmt="D", color=colour, ms=8, capsize=4, lw=2)
        axis.annotate(
            f"{found.mean:.2f}", (found.mean, i), xytext=(0, 9), textcoords="offset points", ha="center",
            fontsize=12, color=colour, fontweight="bold",
        )  # fmt: skip
    axis.set_yticks(range(len(shown)), [words for words, *_ in shown], fontsize=12)
    axis.set_ylim(len(shown) - 0.5, -0.75)
    seeds = max((len(values) for *_, values in shown), default=0)
    axis.set_xlabel(f"validation loss, nats (less is better); mean, 95% interval and {seeds} seeds", fontsize=11)
    figure.suptitle(
        "What a GPT is fed decides how DyT as published does", x=0.01, ha="left", fontsize=15, fontweight="bold"
    )
    axis.grid(axis="x", alpha=0.3)
    axis.tick_params(left=False)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    replace_file(path, lambda out: figure.savefig(out, dpi=150, format="png", metadata={"Description": _told(results)}))
    plt.close(figure)


def write(results: Path) -> None:
    """Draws the picture where its numbers changed."""
    if _numbers(picture()) != _told(results):
        picture().parent.mkdir(parents=True, exist_ok=True)
        draw(results, picture())


def differs(results: Path) -> list[str]:
    """A line where the picture's numbers are not those of `results`."""
    if _numbers(picture()) == _told(results):
        return []
    return [f"{picture().relative_to(marked.ROOT)} does not show what {results.name}/ says; type {marked.WRITES}"]


def _numbers(file: Path) -> str | None:
    """The numbers that the file says it shows; None where there is no such picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as picture:
            return picture.text.get("Description")
    except (OSError, UnidentifiedImageError):
        return None
