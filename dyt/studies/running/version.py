"""Rows that a study, as it stands, does not have: of other data, or of another version of its file."""

from pathlib import Path

from dyt.config.identity import Plan
from dyt.studies.running import rows as csv
from dyt.studies.running.study import Run, Study


def refuse_other_version(
    folder: Path, study: Study, mine: list[dict], planned: dict[str, tuple[Run, Plan, list[str]]]
) -> None:
    """Raises ValueError where a row of `mine`, which are in `folder`, is none of the `planned` runs: how it differs.

    Rows of more seeds than are asked for now are no others.
    """
    for row in mine:
        if row["config_hash"] in planned:
            continue
        cell = {f: row[f] for f in study.factors if row.get(f)}
        alike = {
            run.seed: (run, plan) for run, plan, _ in planned.values() if run.cell == cell
        }  # cells differ in seeds
        same = alike.get(row["seed"])
        if same is None and alike and row["seed"] > max(alike):
            continue
        if same is None:
            what = f"it has {' '.join(cell.values())}, which the study has not"
        else:
            run, plan = same
            theirs, ours = set(row["overrides"].split()), set(csv.overrides(run).split())
            name, there, here = plan.config["data"]["name"], row["data_sha256"], plan.data_sha256
            if theirs == ours and there not in ("", here):
                raise ValueError(
                    f"{folder} has rows of other data ({name} of sha256 {there[:12]}, and {here[:12]} is here); give "
                    f"their data with --data {name}=<folder>, or move that folder aside and run again"
                )
            what = f"{' '.join(sorted(theirs - ours)) or '-'} there, {' '.join(sorted(ours - theirs)) or '-'} here"
            what = what if theirs != ours else "the same overrides with another group's default"
        raise ValueError(
            f"{folder} was written by another version of {study.name} ({what}); move that folder aside and run again: "
            "runs that are still the same are found by their hash"
        )
