"""Every claim in a study or with the reason why not; the list of studies; README's verdict table."""

import json
import re
from pathlib import Path

from dyt.studies.running.rows import read_runs
from dyt.studies.running.study import FOLDER, SCALES, Study, names, result_folder
from dyt.studies.showing.marked import README, between, fill
from dyt.studies.showing.table import asked, claims, spread
from dyt.studies.statistics import interval

FINDINGS = FOLDER / "findings.md"

# Claims that no study tests, by the beginning of their id, and why. The first that fits counts.
LEFT_OUT = (
    (r"dyt-table2-|dyt-table9-mae|dyt-table1[23]-.*(mae|dino)", "MAE and DINO training are not in this repository"),
    (r".*-dit-", "diffusion transformers are not in this repository"),
    (r".*wav2vec2", "speech models are not in this repository"),
    (r".*(hyenadna|caduceus)", "DNA models are not in this repository"),
    (r"dyt-table4-.*zeroshot", "zero-shot accuracy needs an evaluation harness; none is here"),
    (r"dyt-table12-lr-no-gain", "a count over ten models, most of which are not in this repository"),
    (
        r"dyt-table1[45]-|derf-table27-|hatzky-",
        "a time, not a loss: python scripts/bench.py model (results/efficiency/)",
    ),
    (r"derf-table13-", "training loss in evaluation mode is not logged here"),
    (r"derf-table[1-7]-", "shifts, clips and functions of the Derf paper's search, which are not in this repository"),
    (r"derf-table1[456]-", "s in other functions or per channel: here Derf alone has it, a scalar"),
    (r"regime-(llama|vit|owt|hardtanh|dropout|rmsnorm|10k)", "a side experiment of arXiv 2604.23434"),
    (r"regime-scaling-(354m|1.3b|3.78b)", "a size with no recipe here; 64M and 124M are in `regime`"),
    (r"regime-traingap", "training loss; `regime` reports final and best validation"),
    (r"bhyt-", "BHyT, Peri-LN and LNS are not in this repository, nor is C4"),
    (r"coupling-", "Muon is not in this repository; the numbers are second-hand"),
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


def readme_table(results: Path) -> str:
    """README's verdict table: one row per test, at the largest scale that was run."""
    lines = ["| claim | the papers | ours | scale | verdict | study |", "| --- | --- | --- | --- | --- | --- |"]
    for name in names():
        study = Study(name)
        for test in study.tests:
            row = None
            for scale in reversed(SCALES):
                row = row or next(
                    (v for v in present(study, scale, results) if v["says"] == test["says"] and scale != "smoke"), None
                )
            if row is None:
                where = next((s for s in ("small", "gpu", "paper") if s in test["scales"]), "small")
                row = {"paper": None, "ours": "not run", "scale": where, "verdict": "not run"}
            paper = row["paper"] or ("this repository's own" if study.own or not test["claims"] else "-")
            link = f"[{name}](results/{name}/{row['scale']}/table.md)" if row["verdict"] != "not run" else name
            lines.append(
                f"| {test['says']} | {paper} | {row['ours']} | {row['scale']} | **{row['verdict']}** | {link} |"
            )
    gpu = [
        n for n in names() if "gpu" in Study(n).scales and not (result_folder(results, n, "gpu") / "runs.csv").is_file()
    ]
    lines += ["", "Each row: `python scripts/reproduce.py <study> --scale <scale>`."]
    if gpu:
        lines.append(
            f"Not run at `gpu` scale, for want of a GPU: {', '.join(gpu)}. The one command: "
            f"`python scripts/reproduce.py {' '.join(gpu)} --scale gpu`."
        )
    return "\n".join(lines)


def findings(results: Path) -> str:
    """``configs/study/findings.md`` with every ``{study|level;level}`` replaced by that cell's mean and interval.

    Raises:
        ValueError: a study or cell that does not exist; missing rows show as "not run".
    """

    def value(found: re.Match) -> str:
        study = Study(found[1])
        levels = found[2].split(";")
        cell = next((c for c in study.cells("small") if list(c.values()) == levels), None)
        if cell is None:
            raise ValueError(f"{FINDINGS}: {found[0]}: {study.name} has no such cell")
        about = asked(study, "small", read_runs(result_folder(results, study.name, "small") / "runs.csv", study))
        values = [
            v for r in about.rows if all(r.get(f) == cell.get(f, "") for f in study.factors) for v in [about.value(r)]
        ]
        if not values:
            return "not run"
        if None in values:
            return f"diverged in {values.count(None)} of {len(values)} runs"
        return spread(interval(values), 3 if study.higher_is_better else 2)

    return re.sub(r"\{(\w+)\|([^}]*)\}", value, FINDINGS.read_text())


def readme_part(results: Path) -> str:
    """What README's studies part holds: findings, then the verdict table."""
    return f"{findings(results)}\n### Verdicts\n\n{readme_table(results)}"


def fill_readme(results: Path) -> None:
    """Writes findings and verdicts between README's markers."""
    fill("studies", readme_part(results))


def readme_differs(results: Path) -> list[str]:
    """One line where README's verdict table is not what the verdicts on disk say."""
    if between("studies") == readme_part(results).rstrip() + "\n":
        return []
    return [f"{README.name}'s studies part is not what results/ says; type python scripts/reproduce.py --readme"]
