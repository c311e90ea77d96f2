"""What the page calls a run: by what differs among its like, and by the cells of the studies that have it."""

from collections.abc import Iterable

from dyt.config import variants
from dyt.studies.running.study import Study

OWN = "runs"  # what the runs are that no study has


def name_own(runs: list[dict]) -> None:
    """Names the runs that no study has: those of one model and data by what differs among them."""
    places: dict[str, list[dict]] = {}
    for run in runs:
        places.setdefault(f"{run['model']} on {run['data']}", []).append(run)
    for place, members in places.items():
        differs = variants.differing([run["config"] for run in members])
        usual = variants.usual([run["config"] for run in members], differs)
        keys: dict[str, list[str]] = {}
        for run in members:
            named = [key for key in differs if key not in usual or str(run["config"].get(key)) != usual[key]]
            variant = variants.of_config(run["config"], named)
            same = keys.setdefault(variant, [])
            if run["key"] not in same:
                same.append(run["key"])
            more = f" ({same.index(run['key']) + 1})" if same.index(run["key"]) else ""
            swept = {key: str(run["config"][key]) for key in differs if key in run["config"]}
            arm = variants.of_config(run["config"], [key for key in named if key != "optim.lr"])
            run["in"] = {OWN: {
                "variant": variant + more, "place": place, "arm": arm + more,
                "cell": swept, "baseline": run["norm"] == "layernorm",
            }}  # fmt: skip


def name_studys(runs: list[dict], cells: list[dict], study: Study, scope: str) -> None:
    """Names a study's runs by their cells: variant, the place where it was tried, and the arm that was searched."""
    every = [*cells, *study.cells(scope.rpartition("/")[2])]  # those that are not there yet count for what varies
    varies = [f for f in study.factors if len({c[f] for c in every if f in c}) > 1]
    searched = study.search if study.search in varies else "lr" if "lr" in varies else None
    for run, cell in zip(runs, cells, strict=True):
        norm = run["norm"]
        variant, place = variants.of_cell(cell, norm, varies)
        arm, _ = variants.of_cell(cell, norm, [f for f in varies if f != searched])
        baseline = bool(study.baseline) and all(cell.get(f) == v for f, v in study.baseline.items())
        place = place or f"{run['model'] or 'vit_nano'} on {run['data']}"
        run["in"] = {scope: {
            "variant": variant, "place": place, "arm": arm, "cell": {f: cell[f] for f in varies if f in cell},
            "baseline": baseline,
        }}  # fmt: skip


def join_studies(runs: list[dict], told: list[dict]) -> None:
    """Gives a study its runs that have no row yet: they say their study as their tag, and have its settings.

    Args:
        runs: all of them. told: the studies at their scales that the page shows.
    """
    for run in runs:
        for about in told if not run["studies"] else []:
            if about["name"] != run["config"].get("tag"):
                continue
            study, scope = Study(about["name"]), f"{about['name']}/{about['scale']}"
            asked = study.runs(about["scale"])
            mine = next((r for r in asked if r.seed == run["seed"] and says(run["config"], r.words)), None)
            if mine is None:
                continue
            name_studys([run], [mine.cell], study, scope)
            named = run["in"][scope]
            if not any(r["in"].get(scope) == named and r["seed"] == run["seed"] for r in runs if r is not run):
                run |= {"studies": [scope], "metric": study.metric, "key": f"{scope} {' '.join(mine.cell.values())}"}
                break
            run["in"] = {}


def says(flat: dict, words: Iterable[str]) -> bool:
    """Whether a run's flat config has what these overrides ask for."""
    for word in words:
        key, _, asked = word.partition("=")
        has = str(flat.get(key, flat.get(f"{key}.name")))
        try:
            same = has == asked or float(has) == float(asked)
        except ValueError:
            same = has.lower() == asked.lower()
        if not same and not (asked == "null" and has == "None"):
            return False
    return True
