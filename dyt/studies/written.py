"""What is written of a study from its rows and curves alone, and whether it still is what they say."""

import json
from pathlib import Path

from dyt.rundir.files import write_json, write_text
from dyt.studies.running import rows as csv
from dyt.studies.running.study import Study, result_folder


def write_report(study: Study, scale: str, rows: list[dict], results: Path, folders: dict) -> list[dict]:
    """Writes table.md, verdicts.json and the figures from rows and the curves.parquet beside them.

    `folders` gives by config hash the run's directory, where it is, and its norm's name.
    """
    from dyt.studies.showing.figures import draw
    from dyt.studies.showing.table import table, verdicts

    folder = result_folder(results, study.name, scale)
    curves = csv.read_curves(folder / "curves.parquet")
    found = verdicts(study, scale, rows, curves, results)
    write_json(folder / "verdicts.json", found)
    write_text(folder / "table.md", table(study, scale, rows, found, curves, results))
    draw(study, scale, rows, curves, folder, folders)
    return found


def report(study: Study, scale: str, results: Path) -> Path | None:
    """Writes a study's report from committed rows and curves alone, without its data; None where it has no rows."""
    folder = result_folder(results, study.name, scale)
    rows = csv.read_runs(folder / "runs.csv", study)
    if not rows:
        return None
    csv.refuse_lost(folder / "curves.parquet", rows)
    # No run's directory: what a figure needs beyond curves is kept beside it.
    write_report(study, scale, rows, results, {r["config_hash"]: (folder / r["run"], "") for r in rows})
    return folder / "table.md"


def check(studies: list[tuple[Study, str]], results: Path) -> list[str]:
    """What is not as the rows say, one line each: table.md and verdicts.json of every scale that has a runs.csv."""
    from dyt.studies.judging.rules import RULES
    from dyt.studies.showing.table import made_under, table, verdicts

    wrong = []
    for study, scale in studies:
        folder = result_folder(results, study.name, scale)
        if not (folder / "runs.csv").is_file():
            continue
        anew = f"type python scripts/reproduce.py {study.name} --report"
        for name in ("curves.parquet", "figure.png"):
            if not (folder / name).is_file():
                file = (folder / name).relative_to(results.parent)
                wrong.append(f"{file} is missing; {anew if name == 'figure.png' else f'type git checkout -- {file}'}")
        found, curves = csv.read_runs(folder / "runs.csv", study), csv.read_curves(folder / "curves.parquet")
        answers = verdicts(study, scale, found, curves, results)
        for name, want in (
            ("verdicts.json", json.dumps(answers, indent=2) + "\n"),
            ("table.md", table(study, scale, found, answers, curves, results)),
        ):
            file = folder / name
            text = file.read_text() if file.is_file() else ""
            if text == want:
                continue
            what = "is not what runs.csv says"
            if text and (rules := made_under(name, text)) != RULES:
                what = f"was made under rules {rules}, and {RULES} are the present ones"
            wrong.append(f"{file.relative_to(results.parent)} {what}; {anew}")
    return wrong
