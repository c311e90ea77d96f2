"""Every claim in a study or with the reason why not; the list of studies; findings and verdicts of README and pages."""

import json
import re
from functools import cache
from pathlib import Path

from dyt.studies.judging import ladder
from dyt.studies.judging.search import searched
from dyt.studies.judging.verdicts import Rows
from dyt.studies.running.rows import read_runs
from dyt.studies.running.study import FOLDER, SCALES, Study, names, result_folder
from dyt.studies.showing import words
from dyt.studies.showing.marked import WRITES, Part
from dyt.studies.showing.table import asked, claims
from dyt.studies.statistics import Interval, interval

# Claims that no study tests, by the beginning of their id, and why. The first that fits counts.
LEFT_OUT = (
    (r"dyt-table2-dino-vit-b-p8", "a fine-tuned ViT; `dino` measures the features themselves"),
    (r"derf-table11-hyenadna", "pretrained on the human genome; `dna` has Derf from scratch only"),
    (r"dyt-table1[23]-.*dino", "other rates and starts of DINO; `dino` has the paper's own recipe"),
    (
        r"dyt-table9-mae|dyt-table1[23]-.*mae",
        "other methods, rates and starts of MAE; `mae` has the paper's own recipe",
    ),
    (r"dyt-table1[23]-.*wav2vec2", "other rates and starts of wav2vec 2.0; `speech` has the paper's own recipe"),
    (r".*caduceus", "Caduceus is built of Mamba blocks, whose scan needs CUDA kernels; `dna` has HyenaDNA"),
    (r"dyt-table4-.*zeroshot", "zero-shot accuracy needs an evaluation harness; none is here"),
    (r"dyt-table12-lr-no-gain", "a count over ten models, each at several rates; no study tunes them all"),
    (
        r"dyt-table1[45]-|hatzky-",
        "a time, not a loss: python scripts/bench.py model (results/efficiency/)",
    ),
    (r"derf-table27-", "a layer's time, not a loss: python scripts/bench.py op (results/efficiency/)"),
    (r"derf-table13-", "training loss in evaluation mode is not logged here"),
    (r"derf-table[1-7]-", "shifts, clips and functions of the Derf paper's search, which are not in this repository"),
    (r"derf-table14-shift-erf", "the shift s alone: no study compares norm=derf with norm=dyt norm.squash=erf"),
    (r"derf-table1[45]-", "s in other functions or per channel: here Derf alone has it, a scalar"),
    (r"derf-table16-", "a tanh that is scaled to Derf's slope is not in this repository"),
    (r"regime-(llama|vit|owt|hardtanh|dropout|rmsnorm|10k)", "a side experiment of arXiv 2604.23434"),
    (r"regime-scaling-(354m|1.3b|3.78b)", "a size with no recipe here; `regime` has 64M"),
    (r"regime-traingap", "training loss; `regime` reports final and best validation"),
    (r"bhyt-", "BHyT, Peri-LN and LNS are not in this repository, nor is C4"),
)


def tested() -> dict[str, list[str]]:
    """By claim id the studies that test it."""
    found: dict[str, list[str]] = {}
    for name in names():
        for test in Study(name).tests:
            for id in test["claims"]:
                if name not in found.setdefault(id, []):
                    found[id].append(name)
    return found


def reason(id: str) -> str | None:
    """Why no study tests a claim."""
    return next((why for pattern, why in LEFT_OUT if re.match(pattern, id)), None)


def check_claims() -> None:
    """Raises:
    ValueError: a study names a claim that claims.yaml does not have.
    """
    for id, studies in tested().items():
        if id not in claims():
            near = next((c for c in claims() if c.startswith(id[:14])), next(iter(claims())))
            raise ValueError(
                f"study {studies[0]} tests the claim {id}, which results/paper/claims.yaml has not; e.g. {near}"
            )


def _header(study: Study, key: str) -> str:
    """What a study's header says under a key such as ``Cost``."""
    lines = study.header().splitlines()
    for i, line in enumerate(lines):
        if line.startswith(f"{key}:"):
            text = [line.partition(":")[2]]
            for more in lines[i + 1 :]:
                if re.match(r"[A-Z][A-Za-z ,]*:|LayerNorm|BatchNorm", more):
                    break
                text.append(more)
            return " ".join(" ".join(text).split())
    return ""


def present(study: Study, scale: str, results: Path) -> list[dict]:
    """The verdicts on disk of a scale."""
    try:
        return json.loads((result_folder(results, study.name, scale) / "verdicts.json").read_text())
    except (OSError, ValueError):
        return []


def listing(studies: list[Study], results: Path, everything: bool) -> str:
    """What --list prints."""
    lines = []
    for study in studies:
        lines += [
            f"{study.name}: {study.title.strip()}",
            f"  scales   {', '.join(study.scales)}",
            f"  cost     {_header(study, 'Cost')}",
        ]
        ids = list(dict.fromkeys(id for test in study.tests for id in test["claims"]))
        lines.append(f"  claims   {', '.join(ids) or 'none of the papers: a question of this repository'}")
        for test in study.tests:
            verdict = []
            for scale in SCALES[1:]:
                if scale in test["scales"]:
                    now = next(
                        (v["verdict"] for v in present(study, scale, results) if v["says"] == test["says"]), "not run"
                    )
                    verdict.append(f"{scale} {now}")
            lines.append(f"  verdict  {test['says']}: {'; '.join(verdict)}")
        lines.append("")
    if everything:
        by = tested()
        lines.append("Claims that no study tests, and why not:")
        for id in claims():
            if id not in by:
                lines.append(f"  {id}: {reason(id) or 'NO REASON GIVEN'}")
    return "\n".join(lines)


def verdict_page(results: Path) -> str:
    """Every study with its verdicts: one row per test, at the largest scale that was run."""
    lines = []
    for name in names():
        study = Study(name)
        lines += [f"## {name}", "", " ".join(study.title.split()), ""]
        lines += ["| claim | the papers | ours | scale | verdict |", "| --- | --- | --- | --- | --- |"]
        ran = set()
        for test in study.tests:
            row = next((r for scale in reversed(SCALES[1:]) for r in present(study, scale, results)
                        if r["says"] == test["says"]), None)  # fmt: skip
            if row is None:
                where = next((s for s in ("small", *SCALES[2:]) if s in test["scales"]), "small")
                row = {"we_found": "-", "scale": where, "verdict": "not run"}
            else:
                ran.add(row["scale"])
            paper = words.the_papers(test, claims()) or "no number in the papers"
            cells = (test["says"], paper, row["we_found"], row["scale"], f"**{row['verdict']}**")
            lines.append(f"| {' | '.join(cells)} |")
        links = [f"[{scale}: table and runs](../results/{name}/{scale}/table.md)" for scale in SCALES if scale in ran]
        missing = [scale for scale in study.scales if scale not in (*ran, "smoke")]
        lines += ["", ". ".join([*links, *([f"Not run: {', '.join(missing)}"] if missing else [])]) + ".", ""]
    gpu = [
        n for n in names() if "gpu" in Study(n).scales and not (result_folder(results, n, "gpu") / "runs.csv").is_file()
    ]
    if gpu:
        lines += [
            f"Not run at `gpu` scale, for want of a GPU: {', '.join(gpu)}. The one command: "
            f"`python scripts/reproduce.py {' '.join(gpu)} --scale gpu`."
        ]
    return "\n".join(lines)


def told(template: Path, results: Path) -> str:
    """A text of ``configs/study/`` with its numbers filled in.

    ``{study|level;level}`` is a cell's final value at small scale, mean and interval; ``{study@medium|...}`` is of
    another scale. With ``|mean`` it is the mean alone, with ``|seeds`` how many runs, with ``|best`` the searched
    factor's best level, with a derived number's name that one (and " points" after it: 100 times that), with
    ``|minus level;level`` how much it is above another cell, paired by seed. The levels are of the cell's first
    factors; a searched one that is left out is at its best, marked "(edge)" where that is the end of the range.
    ``{ladder|arm|foretold loss}`` is what a ladder foretold of the size that it kept out, ``foretold gap`` its gap to
    the baseline, and ``foretold gap at 124M`` that further out. ``{paper|claim|arm}`` is a number of the papers.

    Raises:
        ValueError: a study, scale, cell, claim or arm that does not exist. Missing rows show as "not run".
    """

    @cache
    def of(name: str, scale: str) -> tuple[Study, str, Rows]:
        study = Study(name)
        return study, scale, asked(study, scale, read_runs(result_folder(results, name, scale) / "runs.csv", study))

    def number(found: re.Match) -> str:
        (what, _, scale), which, how = found[1].partition("@"), found[2], found[3]
        if what != "paper":
            study, scale, about = of(what, scale or "small")
            if (how or "").startswith("foretold "):
                folder = result_folder(results, what, scale)
                return ladder.foretold(study, scale, about, which, how, folder, f"{template}: {found[0]}")
            return _cell(study, scale, about, which.split(";"), how, f"{template}: {found[0]}")
        value = claims().get(which, {}).get("values", {}).get(how)
        if value is None:
            raise ValueError(f"{template}: {found[0]}: claims.yaml has no such number")
        return f"{value:.2f}" if "loss" in claims()[which]["metric"] else str(round(float(value), 2))

    return re.sub(r"\{([\w@]+)\|([^|}]*)(?:\|([^}]*))?\}", number, template.read_text())


def _cell(study: Study, scale: str, about: Rows, levels: list[str], how: str | None, where: str) -> str:
    cell = _levels(study, scale, about, levels, where)
    points, how = (how or "").endswith(" points"), (how or "").removesuffix(" points") or None
    values = list(about.values(cell, how if how in study.derived else "final").values())
    if not values:
        return "not run"
    if how == "seeds":
        return str(len(values))
    if how == "best":
        return about.chosen(cell) or "not searched"
    if (how or "").startswith("minus "):
        other = _levels(study, scale, about, how.removeprefix("minus ").split(";"), where)
        return words.apart(study, about, cell, other)
    if None in values:
        return _lost(about, cell)
    factor, digits, unit = (100, 1, "%") if study.percent else (1, words.DIGITS.get(study.metric, 2), "")
    if points:
        factor, digits = 100, 1
    found = interval([factor * v for v in values])
    if how == "mean":
        return words.spread(Interval(found.n, found.mean), digits) + unit
    edge = any(side.edge for side in searched(about, {"": cell}))
    return words.spread(found, digits) + unit + (" (edge)" if edge else "")


def _lost(about: Rows, cell: dict[str, str]) -> str:
    """How many of a cell's runs diverged, or ended no better than chance, and where."""
    rows = about.at_best(cell)
    lost = [row for row in rows if about.value(row) is None]
    chance = [row["final"] for row in lost if row["status"] == "finished" and row["final"] is not None]
    many = f"in {len(lost)} of {len(rows)} runs"
    if len(chance) == len(lost):
        return f"{sum(chance) / len(chance):.2f}, no better than chance, {many}"
    return f"diverged {many}"


def _levels(study: Study, scale: str, about: Rows, levels: list[str], where: str) -> dict[str, str]:
    """The cell whose first factors have these levels."""
    cell = next((c for c in study.cells(scale) if list(c.values())[: len(levels)] == levels), None)
    if cell is None:
        raise ValueError(f"{where}: {study.name} has no such cell")
    cell = dict(list(cell.items())[: len(levels)])
    if factor := about.mixed(cell):
        raise ValueError(f"{where}: several rows for a seed; it must fix {factor}")
    return cell


def _told(name: str) -> Part:
    return Part(name, WRITES, lambda results: told(FOLDER / f"{name}.md", results))


# README's findings, and what speaks for and against DyT; the page of findings; the page of verdicts.
PARTS = (_told("front"), _told("evidence"), _told("findings"), Part("verdicts", WRITES, verdict_page))
