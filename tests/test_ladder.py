"""The ladder: laws with known answers, a prediction written before its size is run, and searches that choose seeds."""

import json

import numpy as np
import pytest

from dyt.studies import due, runner
from dyt.studies.judging import ladder
from dyt.studies.judging.cells import Rows
from dyt.studies.judging.verdicts import judge
from dyt.studies.running.study import Study

SIZES = [1e5, 2e5, 4e5, 8e5]
BASE = Study("ladder").baseline["norm"]


def law(n, floor=1.2, scale=0.4, power=0.3):
    return floor + scale * (np.asarray(n) / 1e6) ** -power


@pytest.mark.parametrize("power", [0.08, 0.3, 0.76, 1.5])
@pytest.mark.parametrize("floor", [0.0, 1.2])
def test_a_made_up_law_is_found_and_carries_on(floor, power):
    found = ladder.fit(SIZES, law(SIZES, floor, power=power))
    assert found.floor == pytest.approx(floor, abs=1e-4) and found.scale == pytest.approx(0.4, abs=1e-3)
    assert found.power == pytest.approx(power, rel=1e-3)
    assert found.at(64e6) == pytest.approx(law(64e6, floor, power=power), abs=1e-3)


def test_one_run_a_size_has_no_interval():
    assert ladder.resampled({100: [1.0], 200: [0.9, 0.8], 400: [0.7, 0.7]}) == [] and ladder.spread([]) is None


def test_a_law_needs_three_sizes():
    with pytest.raises(ValueError, match="at least 3 sizes, and there are 2"):
        ladder.fit([1e5, 1e5, 2e5], [2.0, 2.1, 1.9])


def test_bootstrap_intervals_hold_the_truth_about_as_often_as_they_say():
    """Of 25 made-up ladders with 3 seeds a size, the 95% interval of the held-out loss holds it in most."""
    draw = np.random.default_rng(0)
    held = 0
    for i in range(25):
        groups = {int(n): (law(n) + 0.01 * draw.normal(size=3)).tolist() for n in SIZES}
        low, high = ladder.spread([d.at(1.6e6) for d in ladder.resampled(groups, draws=40, seed=i)])
        held += low <= law(1.6e6) <= high
    assert 18 <= held  # few seeds and draws: somewhat fewer than 24


def test_the_interval_at_the_held_out_size_is_of_one_run():
    """Of 30 made-up ladders with 3 seeds a size, 95% of single runs of the held-out size are to lie within."""
    study, draw, held, noise = Study("ladder"), np.random.default_rng(3), 0, 0.006
    for _ in range(30):
        rows = [
            {**row, "final": row["final"] + noise * draw.normal()} for row in made(study, 0.0) if row["lr"] == "2e-3"
        ]
        about = Rows([r for r in rows if r["norm"] == BASE], study.factors, False, search="lr")
        told = ladder.predict(study, "medium", about, {BASE: 1_600_000}, draws=40)
        low, high = told["arms"][BASE]["at"]["held_out"]["loss_95"]
        held += low <= law(1.6e6) + noise * draw.normal() <= high
    assert 26 <= held  # of the mean alone it is 20 to 23


def made(study: Study, noise: float = 0.002) -> list[dict]:
    """Rows of a law for each norm, with learning rate 2e-3 the best; the held-out size is not run."""
    draw = np.random.default_rng(1)
    rows = []
    for norm, lift in ((BASE, 0.0), ("dyt-fed 1/1", 0.1)):
        for size, n in zip(("0.1", "0.2", "0.4", "0.8"), SIZES, strict=True):
            for lr, worse in (("1e-3", 0.05), ("2e-3", 0.0), ("4e-3", 0.05)):
                for seed in range(3):
                    value = float(law(n) + lift * (n / 1e6) ** -0.2 + worse + noise * draw.normal())
                    rows.append({"norm": norm, "size": size, "lr": lr, "seed": seed, "status": "finished",
                                 "final": value, "parameters": int(n), "config_hash": f"{len(rows):010x}"})  # fmt: skip
    return rows


def test_prediction_of_the_held_out_size_and_its_gap():
    study = Study("ladder")
    about = Rows(made(study), study.factors, False, search="lr")
    told = ladder.predict(study, "medium", about, {BASE: 1_600_000, "dyt-fed 1/1": 1_600_000})
    assert (told["size"], told["baseline"]) == ("1.6", BASE)
    place = told["arms"]["dyt-fed 1/1"]["at"]["held_out"]
    gap = 0.1 * 1.6**-0.2
    assert place["gap"] == pytest.approx(gap, abs=0.01) and place["gap_95"][0] < gap < place["gap_95"][1]
    assert told["arms"][BASE]["at"]["held_out"]["loss"] == pytest.approx(float(law(1.6e6)), abs=0.01)
    assert told["arms"][BASE]["at"]["held_out"]["gap"] == 0.0
    assert {a["lr"] for a in told["arms"].values()} == {"2e-3"}  # the held-out size runs at this one
    wide = [np.diff(told["arms"]["dyt-fed 1/1"]["at"][p]["gap_95"])[0] for p in ("held_out", "124M")]
    assert wide[0] < wide[1]  # the further, the less is known
    again = ladder.predict(study, "medium", about, {BASE: 1_600_000, "dyt-fed 1/1": 1_600_000})
    assert json.dumps(again) == json.dumps(told)
    lines = "\n".join(ladder.outcome(study, about, told))
    assert "not run" in lines and "extrapolated to 64M" in lines
    ran = {"norm": BASE, "size": "1.6", "lr": "2e-3", "seed": 0, "status": "finished", "final": 1.5}
    other = {**ran, "lr": "4e-3", "final": 9.0}  # another study's, at a rate that was not predicted
    lines = ladder.outcome(study, Rows([*about.rows, ran, other], study.factors, False, search="lr"), told)
    error = 1.5 - told["arms"][BASE]["at"]["held_out"]["loss"]
    assert any(f"1.5000 (n = 1) | {error:+.4f} |" in line for line in lines)
    gone = {**ran, "status": "diverged", "final": None}
    lines = ladder.outcome(study, Rows([*about.rows, gone], study.factors, False, search="lr"), told)
    assert any(line.endswith("| 1 of 1 lost | - |") for line in lines)  # and not "not run"


def test_each_scale_says_which_size_it_keeps_out(tmp_path):
    study = Study("ladder")
    assert [ladder.kept_out(study, s) for s in ("small", "medium")] == ["0.8", "1.6"]
    about = Rows(made(study), study.factors, False, search="lr")
    told = ladder.predict(study, "small", about, {BASE: 800_000, "dyt-fed 1/1": 800_000})
    assert told["size"] == "0.8"  # and fitted without the runs of that size
    fewer = Rows([r for r in about.rows if r["size"] != "0.8"], study.factors, False, search="lr")
    assert told == ladder.predict(study, "small", fewer, {BASE: 800_000, "dyt-fed 1/1": 800_000})
    file = tmp_path / "own.yaml"
    file.write_text(study.path.read_text().replace('small: "0.8", ', ""))
    with pytest.raises(ValueError, match="own.yaml: ladder.held_out: say which size scale small predicts"):
        Study(str(file))


def test_the_held_out_size_waits_for_its_prediction(tmp_path, monkeypatch, capsys):
    def at():
        return runner.StudyAt(
            Study("ladder"),
            "smoke",
            extra=["logger.mode=disabled", f"out_root={tmp_path / 'runs'}"],
            results=tmp_path / "results",
        )

    def sizes(made):
        return {made.planned[t.tag][0].cell["size"] for t in made.gather()}

    assert sizes(at()) == {"0.1", "0.2", "0.4"}
    first = at()
    first.gather()
    for n, (hash, (run, _, _)) in enumerate(first.planned.items()):  # as if they had run
        if run.cell["size"] != "1.6":
            parameters = int(float(run.cell["size"]) * 1e6)
            row = {**run.cell, "seed": 0, "status": "finished", "final": float(law(parameters)) + 1e-3 * n,
                   "run": "x/y", "parameters": parameters, "config_hash": hash}  # fmt: skip
            row["overrides"] = runner.csv.overrides(run)
            first.rows[hash] = row
    first.report()
    assert "commit it, then the same command runs the held-out size" in capsys.readouterr().out
    file = first.folder / ladder.FILE
    told = file.read_bytes()
    assert sizes(at()) == {"1.6"}
    first.report()
    assert file.read_bytes() == told and "commit it" not in capsys.readouterr().out  # never written again
    assert "predicted at 1.6" in (first.folder / "table.md").read_text()


def test_further_seeds_run_only_at_the_level_that_the_search_chose(tmp_path):
    study = Study("ladder")
    smoke = study.raw["scales"]["smoke"]
    smoke["grid"] = {"norm": [BASE], "size": ["0.1"], "lr": [1e-3, 2e-3, 4e-3], "search_seeds": 1}
    smoke["seeds"] = 3
    at = runner.StudyAt(study, "smoke", extra=[f"out_root={tmp_path / 'runs'}"], results=tmp_path / "results")
    first = at.gather()
    assert [at.planned[t.tag][0].seed for t in first] == [0, 0, 0] and at.waiting == 6
    for hash, (run, _, _) in at.planned.items():
        if run.seed == 0:
            final = {"0.001": 2.0, "0.002": 1.8, "0.004": 1.9}[run.cell["lr"]]
            at.rows[hash] = {**run.cell, "seed": 0, "status": "finished", "final": final, "config_hash": hash}
    now = [run for run, _, _ in at.planned.values() if run.late and due.due(at, run, None)]
    assert [(r.cell["lr"], r.seed) for r in now] == [("0.002", 1), ("0.002", 2)]


def test_a_searched_ladder_comes_to_its_prediction_and_then_to_its_held_out_size(tmp_path):
    """Further seeds of the levels that lost the search are never run, and nothing waits for them."""
    study = Study("ladder")
    smoke = study.raw["scales"]["smoke"]
    lr = [1e-3, 2e-3, 4e-3]
    smoke["grid"] = [
        {"norm": [BASE, "dyt-fed 1/1"], "size": ["0.1", "0.2", "0.4"], "lr": lr, "search_seeds": 1},
        {"norm": [BASE, "dyt-fed 1/1"], "size": "1.6", "lr": lr, "seeds": 1},
    ]
    smoke["seeds"] = 3
    rounds, at_runs = [], [f"out_root={tmp_path / 'runs'}"]
    while len(rounds) < 5:
        at = runner.StudyAt(study, "smoke", extra=at_runs, results=tmp_path / "results")
        now = [(t.tag, at.planned[t.tag][0]) for t in at.gather()]
        rounds.append((len(now), at.waiting, {run.cell["size"] for _, run in now} == {"1.6"}))
        for hash, run in now:  # as if they had run
            n = int(float(run.cell["size"]) * 1e6)
            final = float(law(n)) + {"0.001": 0.1, "0.002": 0.0, "0.004": 0.1}[run.cell["lr"]] + 1e-3 * run.seed
            at.rows[hash] = {**run.cell, "seed": run.seed, "status": "finished", "final": final, "run": "x/y",
                             "parameters": n, "config_hash": hash, "overrides": runner.csv.overrides(run)}  # fmt: skip
        at.report()
        if len(rounds) == 1:  # a quick look with the first seeds alone foretells nothing, as it would for good
            look = runner.StudyAt(study, "smoke", seeds=1, extra=at_runs, results=tmp_path / "results")
            assert look.gather() == [] and look.waiting == 0
            look.report()
            assert not (at.folder / ladder.FILE).exists()
    # 6 arms x 3 rates, then 2 more seeds at the best of each, then 2 arms of the held-out size at the rate predicted.
    assert rounds == [(18, 36, False), (12, 0, False), (2, 0, True), (0, 0, False), (0, 0, False)]
    told = json.loads((at.folder / ladder.FILE).read_text())
    assert {arm["lr"] for arm in told["arms"].values()} == {"0.002"}
    with pytest.raises(ValueError, match="--rerun would run the size that is predicted"):
        at.gather(rerun=True)
    (at.folder / ladder.FILE).unlink()
    with pytest.raises(ValueError, match="2 runs of the size that it predicts are there"):
        at.gather()


def test_no_prediction_while_a_fitted_run_has_failed(tmp_path):
    study = Study("ladder")
    where = dict(extra=[f"out_root={tmp_path / 'runs'}"], results=tmp_path / "results")
    at = runner.StudyAt(study, "smoke", **where)
    for n, task in enumerate(at.gather()):
        run = at.planned[task.tag][0]
        size = int(float(run.cell["size"]) * 1e6)
        at.rows[task.tag] = {**run.cell, "seed": 0, "status": "finished" if n else "failed", "final": float(law(size)),
                             "run": "x/y", "parameters": size, "config_hash": task.tag,
                             "overrides": runner.csv.overrides(run)}  # fmt: skip
    at.report()
    assert not (at.folder / ladder.FILE).exists()
    again = runner.StudyAt(study, "smoke", **where)
    assert len(again.gather()) == 1  # the one that failed, and none of the held-out size


def test_a_held_out_size_must_be_planned_at_every_rate_that_may_be_chosen(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        Study("ladder").path.read_text().replace(", 8e-3, 1.6e-2, 3.2e-2], seeds: 1}", ", 8e-3], seeds: 1}")
    )
    with pytest.raises(ValueError, match="grid: size 0.8 is not run at lr 0.016, which"):
        Study(str(file))


def test_a_difference_beside_another_is_their_interaction():
    values = {("muon", "dyt"): 2.5, ("muon", "ln"): 2.0, ("adamw", "dyt"): 2.3, ("adamw", "ln"): 2.1}
    rows = [{"optimizer": o, "norm": n, "seed": s, "status": "finished", "final": v + 0.01 * s * (n == "dyt")}
            for (o, n), v in values.items() for s in range(3)]  # fmt: skip
    test = {"kind": "difference", "metric": "final", "where": {"optimizer": "muon"}, "beside": {"optimizer": "adamw"},
            "arm": {"norm": "dyt"}, "against": {"norm": "ln"}, "better": "against"}  # fmt: skip
    found = judge(test, Rows(rows, ["optimizer", "norm"], False))
    assert found.answer == "yes" and found.interval.mean == pytest.approx(0.3)
    gone = [{**r, "status": "diverged"} if (r["optimizer"], r["norm"]) == ("muon", "dyt") else r for r in rows]
    assert judge(test, Rows(gone, ["optimizer", "norm"], False)).why == "of 3 pairs 3 lost by divergence"
    # Whose divergence it was decides: the baseline's under Muon makes the arm's gap smaller there, not larger.
    for lost, why, answer in (
        ([("muon", "ln")], "of 3 pairs 3 won by divergence", "no"),
        ([("adamw", "dyt")], "of 3 pairs 3 won by divergence", "no"),
        ([("adamw", "ln")], "of 3 pairs 3 lost by divergence", "yes"),
        ([("muon", "dyt"), ("adamw", "ln")], "of 3 pairs 3 lost by divergence", "yes"),
        ([("muon", "dyt"), ("muon", "ln")], "0 pairs of seeds, 3 needed", "inconclusive"),
        ([("muon", "dyt"), ("adamw", "dyt")], "0 pairs of seeds, 3 needed", "inconclusive"),
    ):
        gone = [{**r, "status": "diverged"} if (r["optimizer"], r["norm"]) in lost else r for r in rows]
        found = judge(test, Rows(gone, ["optimizer", "norm"], False))
        assert (found.why, found.answer) == (why, answer), lost


def test_two_places_of_a_comparison_may_differ_in_length_and_search():
    """The gap at 0.4M beside that at 0.05M: longer runs, other rates searched; each place is alike within itself."""
    test = {"kind": "difference", "metric": "final", "where": {"size": "big"}, "beside": {"size": "small"},
            "arm": {"norm": "dyt"}, "against": {"norm": "ln"}, "better": "arm"}  # fmt: skip
    rates = {"big": ("1e-3", "2e-3", "4e-3"), "small": ("1e-3", "2e-3", "4e-3", "8e-3")}
    gap = {"big": 0.1, "small": 0.3}
    rows = [
        {"norm": norm, "size": size, "lr": lr, "seed": seed, "status": "finished", "max_steps": len(lrs),
         "final": 2.0 + (lr != "2e-3") + (norm == "dyt") * (gap[size] + 0.01 * seed * (size == "big"))}
        for size, lrs in rates.items() for lr in lrs for norm in ("ln", "dyt") for seed in range(3)
    ]  # fmt: skip
    found = judge(test, Rows(rows, ["norm", "size", "lr"], False, search="lr"))
    assert found.answer == "yes" and found.interval.mean == pytest.approx(-0.19)
    edge = [{**r, "final": 0.5} if (r["size"], r["lr"], r["norm"]) == ("small", "8e-3", "ln") else r for r in rows]
    assert judge(test, Rows(edge, ["norm", "size", "lr"], False, search="lr")).answer == "undertuned"
    longer = [{**r, "max_steps": 9} if (r["size"], r["norm"]) == ("small", "ln") else r for r in rows]
    with pytest.raises(ValueError, match="no comparison at equal length"):
        judge(test, Rows(longer, ["norm", "size", "lr"], False, search="lr"))


def asked_at(rows, study):
    return Rows(rows, study.factors, False, metric="val/loss", search="lr")


def test_a_prediction_is_refused_where_its_rows_or_its_numbers_are_others(tmp_path):
    study = Study("ladder")
    rows = made(study)
    told = ladder.predict(study, "medium", asked_at(rows, study), {BASE: 1_600_000, "dyt-fed 1/1": 1_600_000}, draws=2)
    file = tmp_path / ladder.FILE
    assert ladder.read(study, "medium", tmp_path, asked_at(rows, study)) is None
    file.write_text(json.dumps(told))
    assert ladder.read(study, "medium", tmp_path, asked_at(rows, study)) == told
    more = [*rows, {**rows[0], "seed": 9, "config_hash": "more"}]  # of a later --seeds; the prediction stands
    assert ladder.read(study, "medium", tmp_path, asked_at(more, study)) == told
    with pytest.raises(ValueError, match="made of 72 rows, and 1 of them are gone or changed"):
        ladder.read(study, "medium", tmp_path, asked_at(rows[1:], study))
    with pytest.raises(ValueError, match="made of 72 rows, and 1 of them are gone or changed"):
        ladder.read(study, "medium", tmp_path, asked_at([{**rows[0], "final": 1.0}, *rows[1:]], study))
    told["arms"]["dyt-fed 1/1"]["at"]["held_out"]["loss"] += 0.01
    file.write_text(json.dumps(told))
    with pytest.raises(ValueError, match="the loss of dyt-fed 1/1 at held_out is not what its rows say"):
        ladder.read(study, "medium", tmp_path, asked_at(rows, study))
    file.write_text(json.dumps(told)[:100])
    with pytest.raises(ValueError, match="cannot be read; git checkout"):
        ladder.read(study, "medium", tmp_path, asked_at(rows, study))


def test_pages_say_what_was_foretold(tmp_path):
    study = Study("ladder")
    rows = made(study)
    told = ladder.predict(study, "medium", asked_at(rows, study), {BASE: 1_600_000, "dyt-fed 1/1": 1_600_000}, draws=2)
    about, arm = asked_at(rows, study), "dyt-fed 1/1"
    words = lambda what, arm=arm, study=study: ladder.foretold(study, "medium", about, arm, what, tmp_path, "here")  # noqa: E731
    assert words("foretold gap") == "not run"
    found, far = (told["arms"][arm]["at"][place] for place in ("held_out", "124M"))
    found |= {"loss_95": [1.254, 1.306], "gap_95": [-0.014, 0.026]}
    far["gap_95"] = None
    (tmp_path / ladder.FILE).write_text(json.dumps(told))
    assert words("foretold loss") == f"{found['loss']:.2f} [1.25, 1.31]"
    assert words("foretold gap") == f"{found['gap']:+.2f} [-0.01, 0.03]"
    assert words("foretold gap at 124M") == f"{far['gap']:+.2f}"
    for wrong in (
        ("foretold gap at 7B",),
        ("foretold power",),
        ("foretold gap", "derf"),
        ("foretold gap", arm, Study("depth")),
    ):
        with pytest.raises(ValueError, match="foretold no such number"):
            words(*wrong)


def test_an_arm_that_diverges_at_two_sizes_has_no_law_and_the_others_have(tmp_path):
    study = Study("ladder")
    lost = [
        {**r, "status": "diverged", "final": None} if r["norm"] != BASE and r["size"] > "0.2" else r
        for r in made(study)
    ]
    told = ladder.predict(study, "medium", asked_at(lost, study), {BASE: 1_600_000, "dyt-fed 1/1": 1_600_000}, draws=2)
    assert told["arms"]["dyt-fed 1/1"] == {"why": "no law: runs are left at 2 sizes, and 3 are needed"}
    assert told["arms"][BASE]["at"]["held_out"]["gap"] == 0.0
    assert "dyt-fed 1/1: no law: runs are left at 2 sizes" in "\n".join(
        ladder.outcome(study, asked_at(lost, study), told)
    )
    lost = [{**r, "status": "diverged", "final": None} if r["norm"] == BASE else r for r in made(study)]
    told = ladder.predict(study, "medium", asked_at(lost, study), {BASE: 1_600_000, "dyt-fed 1/1": 1_600_000}, draws=2)
    assert told["arms"]["dyt-fed 1/1"]["at"]["held_out"]["gap"] is None  # and its loss stands
    assert "| - | not run |" in "\n".join(ladder.outcome(study, asked_at(lost, study), told))
    (tmp_path / ladder.FILE).write_text(json.dumps(told))
    assert ladder.read(study, "medium", tmp_path, asked_at(lost, study)) == told  # and it is read back
