"""A study in W&B: its figure and rows as one run, the papers' numbers as runs of their own, a saved view and a report.

Everything has an id made of what it is, so sending it twice leaves one of each.
"""

import hashlib
import tempfile
from pathlib import Path

from dyt.config import variants
from dyt.report import answer
from dyt.studies.running.study import Study, result_folder
from dyt.studies.showing.overview import present
from dyt.tracking.wandb import as_html, start_wandb

OFFLINE = Path("runs/studies")  # where files go that are sent later
LAYERS = ("^alpha/", "saturated$", "/grad_norm$")  # metrics by layer


def papers(study: Study) -> list[dict]:
    """The papers' numbers of the study's claims: one run each, its value under the key that our runs have."""
    found = {}
    for number in answer.papers(study):
        id, arm = number["claim"], number["arm"]
        about = {k: number[k] for k in ("paper", "table", "model", "dataset", "metric", "source")}
        run = hashlib.sha256(f"{id} {arm}".encode()).hexdigest()[:16]
        summary = {f"final/{study.metric}": number["value"], "status": "published"}
        name = f"paper {number['paper']} {number['table'] or ''}: {number['model']} {arm}"
        config = about | {"norm.name": arm, "claim": id, "variant": f"paper: {variants.name(arm)}"}
        found[run] = {"id": run, "name": name, "config": config, "summary": summary}
    return list(found.values())


def send_study(
    study: Study, scale: str, results: Path, mode: str, project: str, entity: str | None, artifacts: bool = False
) -> int:
    """Sends a study's figure and verdicts, and the papers' numbers; returns how many runs that makes.

    With `artifacts`, and online, its rows and curves go along as an artifact. Offline, files for `wandb sync` are left
    below `OFFLINE`.

    Raises:
        ValueError: it was not run at that scale. Whatever W&B raises.
    """
    import wandb

    folder = result_folder(results, study.name, scale)
    if not (folder / "runs.csv").is_file():
        raise ValueError(f"{study.name} has no rows at scale {scale}; python scripts/reproduce.py {study.name} first")
    if mode == "offline":
        OFFLINE.mkdir(parents=True, exist_ok=True)
    common = {"project": project, "entity": entity}
    sent = 0
    with tempfile.TemporaryDirectory() as scratch:

        def begin(run_id: str, config: dict, **about):
            nonlocal sent
            sent += 1
            return start_wandb(
                mode, OFFLINE if mode == "offline" else Path(scratch), run_id, config, [], **common, **about
            )

        for paper in papers(study):
            tags = ["paper", study.name]
            run = begin(paper["id"], paper["config"], name=paper["name"], group=f"{study.name}-paper", tags=tags)
            run.summary.update(paper["summary"])
            run.finish()
        about = {"name": f"{study.name} {scale}", "group": study.name, "job_type": "study"}
        config = {"study": study.name, "scale": scale, "title": study.title, "metric": study.metric}
        rows = hashlib.sha256((folder / "runs.csv").read_bytes()).hexdigest()[:8]  # other rows are another run
        run = begin(f"study-{study.name}-{scale}-{rows}", config, **about)
        keys = ["says", "papers_say", "we_found", "verdict"]
        answers = [[str(v.get(k) or "") for k in keys] for v in present(study, scale, results)]
        if run.starting_step == 0:  # not sent before
            media = {"verdicts": as_html("\n\n".join("\n".join(answer) for answer in answers))}
            if (folder / "figure.png").is_file():
                media["figure"] = wandb.Image(str(folder / "figure.png"), caption=study.title)
            run.log(media, step=1)
        for verdict, count in _counts(answers).items():
            run.summary[f"verdicts/{verdict}"] = count
        if artifacts and mode == "online":
            rows = wandb.Artifact(f"{study.name}-{scale}", type="rows", description=study.title)
            for name in ("runs.csv", "curves.parquet", "verdicts.json"):
                if (folder / name).is_file():
                    rows.add_file(str(folder / name))
            run.log_artifact(rows)  # the same content makes no new version
        run.finish()
    return sent


def _counts(answers: list[list[str]]) -> dict[str, int]:
    verdicts = [answer[-1] for answer in answers]
    return {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}


def report_of(study: Study, scale: str, results: Path, project: str, entity: str):
    """The study as a W&B report, unsaved, in the page's order: answer, curves and papers' numbers, tuning, layers.

    Raises:
        ValueError: the package wandb-workspaces is not installed.
    """
    wr = _package("reports.v2")
    place = {"project": project, "entity": entity, "filters": f"Tags = '{study.name}'"}
    ours = wr.Runset(name="ours", groupby=["config.variant"], **place)
    everything = wr.Runset(name="paper and ours", **place)
    lines = [
        f"- {v['says']}: **{v['verdict']}** ({v['we_found']}; the papers: {v['papers_say'] or 'none'})"
        for v in present(study, scale, results)
    ]
    command = f"`python scripts/reproduce.py {study.name} --scale {scale}`"
    curves = [wr.LinePlot(x="step", y=[key]) for key in (study.metric, "train/loss")]
    layers = [wr.LinePlot(x="step", metric_regex=regex) for regex in LAYERS]
    tuning = wr.ScatterPlot(x="c::optim.lr", y=f"final/{study.metric}", log_x=True)
    blocks = [
        wr.MarkdownBlock(text="\n".join(["# Answer", "", f"Scale {scale}. {command}", "", *lines])),
        wr.MarkdownBlock(text="# Curves by variant, and the papers' numbers"),
        wr.PanelGrid(runsets=[ours], panels=curves),
        wr.PanelGrid(runsets=[everything], panels=[wr.BarPlot(metrics=[f"final/{study.metric}"])]),
        wr.MarkdownBlock(text="# Tuning"),
        wr.PanelGrid(runsets=[ours], panels=[tuning]),
        wr.MarkdownBlock(text="# Layers"),
        wr.PanelGrid(runsets=[ours], panels=layers),
    ]
    return wr.Report(project=project, entity=entity, title=f"{study.name}: {study.title}"[:128], blocks=blocks)


def workspace_of(project: str, entity: str):
    """A saved view for all runs, unsaved, in the page's order: answer, curves, tuning, layers.

    Raises:
        ValueError: the package wandb-workspaces is not installed.
    """
    ws, wr = _package("workspaces"), _package("reports.v2")
    answer = [wr.BarPlot(metrics=[key]) for key in ("final/val/loss", "final/val/top1")]
    shown = ("val/loss", "train/loss", "val/top1", "grad_norm", "lr")
    panels = {
        "Answer": answer,
        "Curves": [wr.LinePlot(x="step", y=[key]) for key in shown],
        "Tuning": [wr.ScatterPlot(x="c::optim.lr", y="final/val/loss", log_x=True)],
        "Layers": [wr.LinePlot(x="step", metric_regex=regex) for regex in LAYERS],
    }
    sections = [
        ws.Section(name=name, panels=found, is_open=name in ("Answer", "Curves")) for name, found in panels.items()
    ]
    return ws.Workspace(entity=entity, project=project, name="dyt: norms side by side", sections=sections)


def _package(part: str):
    import importlib

    try:
        return importlib.import_module(f"wandb_workspaces.{part}")
    except ImportError as error:
        raise ValueError("--report needs the package wandb-workspaces; type pip install wandb-workspaces") from error
