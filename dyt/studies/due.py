"""What a study's runs wait for: further seeds for their search, a ladder's held-out size for its prediction."""

from dyt.resume import RESULTS, finished
from dyt.rundir.files import write_json
from dyt.studies.judging import ladder
from dyt.studies.judging.rules import asked
from dyt.studies.running import rows as csv
from dyt.studies.running.cost import cost, spec_of
from dyt.studies.running.study import Run


def prediction(at, rows: list[dict]) -> dict | None:
    """The prediction of a ladder's held-out size, None where none was made yet; of a study at a scale (`StudyAt`).

    Raises:
        ValueError: it is not what its rows say, or it is gone while runs of that size are there.
    """
    if not at.study.ladder:
        return None
    told = ladder.read(at.study, at.scale, at.folder, asked(at.study, at.scale, rows))
    ran = [r for r in rows if r["status"] in RESULTS and ladder.held_out(at.study, at.scale, r)]
    if told is None and ran:
        file = at.folder / ladder.FILE
        raise ValueError(
            f"{file} is gone, and {len(ran)} runs of the size that it predicts are there: too late to predict; "
            f"git checkout -- {file} brings the committed one back"
        )
    return told


def foretold(at, run: Run, told: dict | None) -> bool:
    """Whether a run's row may be taken from elsewhere: of the held-out size, those that the prediction names."""
    return not at.study.ladder or ladder.due(at.study, run, told)


def due(at, run: Run, told: dict | None) -> bool:
    """Whether what a run waits for is there."""
    if not foretold(at, run, told):
        return False
    if not run.late:
        return True
    if not searched(at, run):
        return False
    about = asked(at.study, at.scale, list(at.rows.values()))
    return about.chosen(_arm(at, run)) == run.cell[at.study.search]


def searched(at, run: Run) -> bool:
    """Whether the first seeds of a late run's arm have ended at every level."""
    arm = _arm(at, run).items()
    return all(_ended(at, h) for h, (r, _, _) in at.planned.items() if not r.late and r.cell.items() >= arm)


def _arm(at, run: Run) -> dict[str, str]:
    return {f: v for f, v in run.cell.items() if f != at.study.search}


def _ended(at, hash: str) -> bool:
    return at.rows.get(hash, {}).get("status") in RESULTS


def predict(at, rows: list[dict]) -> None:
    """Writes the prediction of the held-out size once all smaller ones have ended, and never again.

    Not where fewer seeds are planned than the study has: what is foretold once would miss the others for good.
    """
    told = prediction(at, rows)
    if len(at.runs) < len(at.study.runs(at.scale)):
        return
    held = {h: r for h, (r, _, _) in at.planned.items() if ladder.held_out(at.study, at.scale, r.cell)}
    fitted = {h: r for h, (r, _, _) in at.planned.items() if h not in held}
    if told or at.waiting or any(not _ended(at, h) and due(at, r, told) for h, r in fitted.items()):
        return
    factor, parameters = next(iter(at.study.baseline)), {}
    for hash, run in held.items():
        config = at.planned[hash][1].config
        spec = spec_of(config, at.study.scale(at.scale), config["model"]["name"])
        parameters[run.cell[factor]] = cost(config, spec, spec.sizes.get("train"))["parameters"]
    told = ladder.predict(at.study, at.scale, asked(at.study, at.scale, rows), parameters)
    committed = csv.committed(at.results)
    if any(h in committed or finished(at.planned[h][1]) for h in held):
        told["known"] = True
    write_json(at.folder / ladder.FILE, told)
    print(
        f"  {at.folder / ladder.FILE} is written; commit it, then the same command runs the held-out size", flush=True
    )
