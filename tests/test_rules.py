"""The rules of comparison, with known answers: search, Holm, what matters, seeds needed, steps to target, curves."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dyt.studies import written
from dyt.studies.judging.cells import Rows
from dyt.studies.judging.curves import Curves, gaps, steps_to, steps_to_target
from dyt.studies.judging.rules import RULES, deviation, matters, settle
from dyt.studies.judging.search import searched, told, undertuned
from dyt.studies.judging.verdicts import Finding, judge
from dyt.studies.running.rows import read_runs
from dyt.studies.running.study import Study
from dyt.studies.statistics import (
    Interval,
    holm,
    interval,
    p_against,
    p_inside,
    p_outside,
    p_rank,
    p_same,
    pooled_deviation,
    seeds_needed,
)

from .helpers import ROOT

TEST = {"kind": "difference", "metric": "final", "arm": {"norm": "dyt"}, "against": {"norm": "ln"}}


def made(values: dict[str, dict[str, list]], **more) -> list[dict]:
    """Rows from ``{norm: {lr: [final by seed, None for diverged]}}``."""
    return [
        {"norm": norm, "lr": lr, "seed": seed, "status": "diverged" if v is None else "finished", "final": v, **more}
        for norm, levels in values.items()
        for lr, finals in levels.items()
        for seed, v in enumerate(finals)
    ]


def asked(values: dict, search: str | None = "lr", higher: bool = False) -> Rows:
    return Rows(made(values), ["norm", "lr"], higher, search=search)


# -- p-values --------------------------------------------------------------------------------------------------------


def test_p_values_are_scipys_and_statsmodels():
    from statsmodels.stats.weightstats import DescrStatsW

    values = [0.010, -0.002, 0.004, 0.006]
    found = interval(values)
    assert p_against(found) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert p_inside(found, 0.02) == pytest.approx(2 * DescrStatsW(values).ttost_mean(-0.02, 0.02)[0])
    assert p_outside(found, 0.001) == pytest.approx(2 * stats.ttest_1samp(values, 0.001, alternative="greater").pvalue)
    x, y = [1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5]
    assert p_rank(x, y) == pytest.approx(stats.spearmanr(x, y).pvalue)
    assert p_rank([1, 2], [1, 2]) is None and p_against(interval([1.0])) is None


@pytest.mark.parametrize("values", [[0.9, 1.0, 1.2, 1.1], [0.1, -0.1, 0.05], [2.0, 2.1, 2.2], [-1.0, -1.3, -0.9]])
def test_p_below_five_percent_is_where_the_interval_ends(values):
    found = interval(values)
    for margin in (0.2, 0.5, 1.3, 3.0):
        assert (p_inside(found, margin) < 0.05) == (found.low > -margin and found.high < margin)
        assert (p_outside(found, margin) < 0.05) == (found.low > margin or found.high < -margin)
    assert (p_against(found) < 0.05) == (found.low > 0 or found.high < 0)


def test_equal_in_every_seed_is_certain():
    same = interval([0.25, 0.25, 0.25])
    assert (p_against(same), p_inside(same, 0.5), p_outside(same, 0.1)) == (0.0, 0.0, 0.0)
    assert p_against(interval([0.0, 0.0])) == 1.0 and p_outside(same, 0.5) == 1.0


def test_holm():
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.02]) == [0.02] and holm([None]) == [None] and holm([]) == []


def test_holm_makes_a_verdict_inconclusive_and_divergence_has_no_p():
    sure, weak = Finding("yes", "a", interval([1.0, 1.1, 0.9]), 3, 0.001), Finding("no", "b", interval([1.0]), 3, 0.03)
    gone = Finding("yes", "of 3 pairs 3 won by divergence", None, 3)
    found = settle([sure, weak, weak, gone])
    assert [f.answer for f in found] == ["yes", "inconclusive", "inconclusive", "yes"]
    assert found[1].adjusted == pytest.approx(0.06) and "not after Holm's correction over 3 tests" in found[1].why
    assert [f.answer for f in settle([sure, weak, gone])] == ["yes", "no", "yes"]  # 0.03 is then the last one's own


def test_an_undertuned_test_stays_in_the_family():
    sure, weak = Finding("yes", "a", interval([1.0, 1.1, 0.9]), 3, 0.001), Finding("no", "b", interval([1.0]), 3, 0.04)
    edge = Finding("undertuned", "best at the highest lr", interval([1.0]), 3)
    assert [f.answer for f in settle([sure, weak])] == ["yes", "no"]
    found = settle([sure, weak, edge])  # 0.04 is the second of three now
    assert [f.answer for f in found] == ["yes", "inconclusive", "undertuned"]
    assert [f.adjusted for f in found] == [pytest.approx(0.003), pytest.approx(0.08), None]


def test_alike_by_pairs_of_seeds_is_not_enough():
    """Two sides that follow each other seed by seed, each of which varies by more than the margin."""
    followed = {"dyt": {"": [2.000, 2.101, 2.200]}, "ln": {"": [2.001, 2.100, 2.201]}}
    parity = {**TEST, "kind": "parity", "margin": 0.02}
    found = judge(parity, asked(followed, None))
    assert found.answer == "inconclusive" and "by pairs of seeds" in found.why
    assert p_inside(found.interval, 0.02) < 0.05 <= found.p
    known = judge(TEST, asked(followed, None), matters=0.01)
    assert known.answer == "inconclusive" and "by pairs of seeds" in known.why and known.p > 0.05
    near = {"dyt": {"": [2.000, 2.002, 2.001]}, "ln": {"": [2.001, 2.000, 2.002]}}
    assert judge(parity, asked(near, None)).answer == "yes"


def test_alike_without_pairs_is_welchs_test():
    one, other = [1.00, 1.03, 1.01, 1.02], [1.01, 1.05, 0.99]
    above = stats.ttest_ind([x + 0.1 for x in one], other, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind([x - 0.1 for x in one], other, equal_var=False, alternative="less").pvalue
    assert p_same(one, other, 0.1) == pytest.approx(2 * max(above, below))
    assert p_same([1.0, 1.0], [1.0, 1.0], 0.1) == 0 and p_same([1.0, 1.0], [1.3, 1.3], 0.1) == 1
    assert p_same([1.0], [1.0, 1.1], 0.1) is None


def test_what_is_said_is_judged_by_its_own_p():
    """Certainly not zero and, less surely, below what matters: "level" rests on the second alone."""
    near = asked({"dyt": {"": [2.0042, 2.0044, 2.0046]}, "ln": {"": [2.0] * 3}}, None)
    found = judge(TEST, near, matters=0.005)
    assert found.answer == "level" and found.p == p_inside(found.interval, 0.005) > 10 * p_against(found.interval)
    others = [Finding("yes", "a", interval([1.0, 1.1, 0.9]), 3, 0.04)] * 3
    assert settle([found])[0].answer == "level" and settle([found, *others])[0].answer == "inconclusive"
    far = asked({"dyt": {"": [2.1, 2.11, 2.12]}, "ln": {"": [2.0] * 3}}, None)
    found = judge(TEST, far, matters=0.005)
    assert found.answer == "no" and found.p == p_against(found.interval)


# -- effects, deviations, seeds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dyt, answer, says",
    [
        ([2.001, 2.000, 1.999, 2.000], "level", "no difference that matters"),
        ([2.002, 2.003, 2.002, 2.003], "level", "worse by less than matters"),
        ([1.997, 1.998, 1.997, 1.998], "level", "better by less than matters"),
        ([1.990, 1.992, 1.998, 1.994], "yes", "perhaps by less than matters"),
        ([1.900, 1.910, 1.900, 1.905], "yes", "the arm is better"),
        ([2.00, 2.09, 1.99, 2.10], "inconclusive", "the interval includes zero"),
    ],
)
def test_a_difference_too_small_to_matter_is_level(dyt, answer, says):
    about = asked({"dyt": {"": dyt}, "ln": {"": [2.0] * 4}}, None)
    found = judge(TEST, about, matters=matters("val/loss"))
    assert found.answer == answer and says in found.why
    assert found.verdict("paper") == {"yes": "reproduced"}.get(answer, answer)


def test_what_matters_by_metric():
    assert (matters("val/loss"), matters("val/top1"), matters("alpha_std_rank")) == (0.005, 0.005, None)


def test_pooled_deviation_weighs_by_degrees_of_freedom():
    found = pooled_deviation([[1, 2, 3], [5.0, 5.5], [9.0]])
    assert found.sd == pytest.approx(((2 * 1.0 + 1 * 0.125) / 3) ** 0.5) and found.runs == 5
    assert pooled_deviation([[1.0], []]) is None


def test_pooled_over_twenty_baseline_runs_or_not_at_all():
    study = Study("gain_init")
    rows = [
        {**dict.fromkeys(study.factors, ""), "setting": "gpt", "norm": norm, "lr": lr, "seed": seed,
         "status": "finished", "final": 2.0 + 0.01 * (seed % 2), "config_hash": f"{norm}{lr}{seed}", "data_sha256": "0"}
        for norm in ("layernorm", "none-fed") for lr in ("2e-3", "4e-3") for seed in range(10)
    ]  # fmt: skip
    about = Rows(rows, study.factors, False)
    found = deviation(study, "small", about)
    assert (found.runs, found.sd) == (20, pytest.approx(0.01 * (10 * 0.25 / 9) ** 0.5))
    assert deviation(study, "small", Rows(rows[1:], study.factors, False)) is None


def test_seeds_needed_is_the_power_computation():
    assert seeds_needed(1.0, 1.0) == 10  # Cohen's d 1, 5%, 80%: the textbook's 9.94
    assert seeds_needed(0.5, 1.0) == 34
    assert seeds_needed(1.0, 1.0, 0.01) > 10
    assert seeds_needed(0.001, 1.0) is None and seeds_needed(1.0, 0.0) == 2


def test_an_open_row_says_how_many_seeds_would_decide_it():
    about = asked({"dyt": {"": [1.9, 2.1, 1.95]}, "ln": {"": [2.0] * 3}}, None)
    (found,) = settle([judge(TEST, about, matters=0.005)])
    assert found.seeds == seeds_needed(found.interval.mean, found.interval.sd)
    from dyt.studies.statistics import Pooled

    (pooled,) = settle([judge(TEST, about, matters=0.005)], Pooled(0.01, 40))
    assert pooled.seeds == max(3, seeds_needed(found.interval.mean, 0.01 * 2**0.5)) < found.seeds
    for runs, sd in ((1, 0.05), (2, 0.05 * 2**0.5), (4, 0.05 * 2)):  # one run, a difference, a difference of two
        (open,) = settle([judge(TEST, about, matters=0.005)], Pooled(0.05, 40), [runs])
        assert open.seeds == seeds_needed(found.interval.mean, sd)
    (own,) = settle([judge(TEST, about, matters=0.005)], Pooled(0.05, 40), [0])
    assert own.seeds == found.seeds


def test_a_difference_of_differences_varies_by_four_runs():
    """The seeds that a committed row asks for are those of the power computation, worked out here."""
    from dyt.studies.judging.rules import asked as of_study
    from dyt.studies.judging.rules import findings

    study, results = Study("optimizer"), ROOT / "results"
    rows = read_runs(results / "optimizer/small/runs.csv", study)
    found = findings(study, "small", rows, results=results)
    about = of_study(study, "small", rows)
    family, pooled = sum(f.p is not None for f in found), deviation(study, "small", about, results)
    wanted = [(f, 2 if t.get("beside") else 2**0.5) for f, t in zip(found, study.tests_at("small"), strict=True)
              if f.answer == "inconclusive" and f.distance and f.interval]  # fmt: skip
    assert {root for _, root in wanted} >= {2}
    for f, root in wanted:
        assert f.seeds == max(3, seeds_needed(f.distance, pooled.sd * root, 0.05 / family) or 1001)


# -- equal search ------------------------------------------------------------------------------------------------------

INSIDE = {"1e-3": [2.2] * 3, "2e-3": [2.0, 2.01, 1.99], "4e-3": [2.1] * 3}


@pytest.mark.parametrize(
    "dyt, says",
    [
        (INSIDE, None),
        ({**INSIDE, "4e-3": [1.5] * 3}, "dyt (the arm) is best at the highest lr searched, 4e-3 of 1e-3 to 4e-3"),
        ({**INSIDE, "1e-3": [1.5] * 3}, "dyt (the arm) is best at the lowest lr searched, 1e-3 of 1e-3 to 4e-3"),
        ({**INSIDE, "8e-3": [2.5] * 3}, "unequal search of lr: dyt (the arm) had 4 x 3 seeds"),
        ({"2e-3": [1.5] * 3}, "unequal search of lr: dyt (the arm) had 1 x 3 seeds (2e-3)"),
        ({"1e-3": [2.2], "2e-3": [2.0, 2.01, 1.99], "4e-3": [2.1]}, None),  # one seed chose; both choose by that one
    ],
)
def test_equal_search_and_the_edge_of_it(dyt, says):
    found = judge(TEST, asked({"dyt": dyt, "ln": INSIDE}))
    assert (found.answer == "undertuned") == bool(says)
    assert says is None or says in found.why
    assert says is None or found.verdict("small") == found.verdict("paper") == "undertuned" and found.p is None


def test_the_baseline_at_the_edge_is_undertuned_too():
    found = judge(TEST, asked({"dyt": INSIDE, "ln": {**INSIDE, "4e-3": [1.5] * 3}}))
    assert found.answer == "undertuned" and "ln (the baseline) is best at the highest" in found.why


def test_a_divergent_end_of_the_range_is_no_edge():
    found = judge(TEST, asked({"dyt": {**INSIDE, "4e-3": [None] * 3}, "ln": INSIDE}))
    assert found.answer != "undertuned" and found.searched == "lr: 3 of 1e-3 to 4e-3; chosen 2e-3 and 2e-3"


def test_a_claim_of_divergence_needs_a_search_that_ends_inside_too():
    test = {"kind": "diverges", "metric": "final", "arm": {"norm": "dyt"}}
    lost = {"1e-3": [None] * 3, "2e-3": [None] * 3, "4e-3": [None] * 3}
    found = judge(test, asked({"dyt": lost, "ln": INSIDE}))
    assert found.answer == "undertuned" and "dyt (the arm) is best at the lowest" in found.why
    found = judge({**test, "arm": {"norm": "dyt", "lr": "2e-3"}}, asked({"dyt": lost, "ln": INSIDE}))
    assert found.answer == "yes"  # at a rate that the claim names


def test_one_level_for_both_is_not_searched_and_a_named_one_is_fixed():
    about = asked({"dyt": {"2e-3": [1.9, 1.91, 1.92]}, "ln": {"2e-3": [2.0] * 3}})
    found = judge(TEST, about)
    assert (found.answer, found.searched) == ("yes", "not searched: lr 2e-3")
    about = asked({"dyt": {**INSIDE, "4e-3": [1.5] * 3}, "ln": INSIDE})
    found = judge({**TEST, "where": {"lr": "4e-3"}}, about)
    assert (found.answer, found.searched) == ("yes", "fixed: lr 4e-3")
    assert judge(TEST, asked({"dyt": {"": [1.9] * 3}, "ln": {"": [2.0] * 3}}, None)).searched == "not searched"


def test_levels_are_ordered_by_value_and_chosen_by_the_seeds_that_all_have():
    about = asked({"dyt": {"1.6e-2": [2.0, 2.0, 0.1], "2e-3": [1.0, 1.1], "4e-3": [1.5, 1.5]}})
    (side,) = searched(about, {"dyt": {"norm": "dyt"}})
    assert side.levels == ("2e-3", "4e-3", "1.6e-2") and side.seeds == 2
    assert side.chosen == "2e-3" and side.edge == "lowest"  # the lucky third seed of 1.6e-2 does not count
    assert undertuned("lr", []) is None and told(about, {"dyt": {"norm": "dyt", "lr": "2e-3"}}) == "fixed: lr 2e-3"


def test_arms_tried_with_unequal_seeds_choose_by_the_seeds_that_both_have():
    """Three seeds of the baseline choose 4e-3, its seed 0 chooses 2e-3; the arm has seed 0 alone."""
    more = {"1e-3": [2.5] * 3, "2e-3": [2.0, 2.2, 2.21], "4e-3": [2.1, 2.1, 2.1], "8e-3": [2.6] * 3}
    once = {"1e-3": [2.4], "2e-3": [1.6, 1.79, 1.82], "4e-3": [1.9], "8e-3": [2.2]}
    about = asked({"dyt": once, "ln": more})
    found = judge(TEST, about)
    assert (found.answer, found.n) == ("yes", 3)
    assert found.interval.mean == pytest.approx(-(0.4 + 0.41 + 0.39) / 3)  # each at 2e-3
    assert found.searched == "lr: 4 of 1e-3 to 8e-3; chosen 2e-3 and 2e-3 by seed 0, which both tried"
    from dyt.studies.running.study import Study
    from dyt.studies.showing.words import apart, ours

    study = Study("depth")  # of nats
    assert ours(TEST, found, about, study) == "ln 2.14 -> DyT 1.74 nats, -0.40 ± 0.02, 3 seeds"
    assert apart(study, about, {"norm": "ln"}, {"norm": "dyt"}) == "+0.40 ± 0.02 nats"
    assert about.chosen({"norm": "ln"}) == "4e-3" and about.electors is None  # asked alone, all of its seeds choose
    alone = judge(TEST, asked({"dyt": more, "ln": more}))
    assert "chosen 4e-3 and 4e-3" in alone.searched and "seed" not in alone.searched


def test_sides_that_share_no_seed_choose_by_their_own():
    theirs = [{**r, "seed": r["seed"] + 10} for r in made({"ln": INSIDE})]
    found = judge(TEST, Rows(made({"dyt": INSIDE}) + theirs, ["norm", "lr"], False, search="lr"))
    assert found.answer == "inconclusive" and found.n == 0


def test_the_best_of_levels_needs_an_equal_search_as_well():
    values = [{**r, "alpha0": a} for a, lift in (("1", 0.0), ("2", 0.3)) for r in made({"dyt": INSIDE})
              for r in [{**r, "final": r["final"] + lift}]]  # fmt: skip
    test = {"kind": "best", "over": "alpha0", "level": "1", "metric": "final", "arm": {"norm": "dyt"}}
    about = Rows(values, ["norm", "lr", "alpha0"], False, search="lr")
    assert judge(test, about).answer == "yes"
    fewer = Rows(
        [r for r in values if not (r["alpha0"] == "2" and r["lr"] == "4e-3")], about.factors, False, search="lr"
    )
    assert judge(test, fewer).answer == "undertuned"


def test_best_by_the_mean_alone_is_not_best():
    values = made({"1": {"": [2.0, 2.1, 1.9]}, "2": {"": [2.05, 2.0, 2.0]}})
    rows = [{**r, "alpha0": r["norm"], "norm": "dyt"} for r in values]
    test = {"kind": "best", "over": "alpha0", "level": "1", "metric": "final", "arm": {"norm": "dyt"}}
    found = judge(test, Rows(rows, ["norm", "alpha0"], False))
    assert found.answer == "inconclusive" and "2 not clearly worse" in found.why and found.p > 0.05


def test_sides_of_unequal_length_are_refused():
    rows = made({"dyt": {"": [1.0] * 3}}, max_steps=400) + made({"ln": {"": [2.0] * 3}}, max_steps=1000)
    with pytest.raises(ValueError, match="no comparison at equal length: steps of dyt .the arm. 400; ln .* 1000"):
        judge(TEST, Rows(rows, ["norm", "lr"], False))


def test_a_study_must_say_what_is_searched(tmp_path):
    text = Study("depth").path.read_text()
    file = tmp_path / "own.yaml"
    for said, shown in (("", "None"), ("search: lrr\n", "lrr")):
        file.write_text(re.sub(r"^search: .*\n", said, text, flags=re.MULTILINE))
        with pytest.raises(ValueError, match=f"own.yaml: search: {shown}: a study says what each arm may choose"):
            Study(str(file))


# -- steps to target ---------------------------------------------------------------------------------------------------


def curve(*values: float, every: int = 250) -> tuple:
    return np.arange(1, len(values) + 1) * float(every), np.array(values)


def test_steps_to_a_target_are_read_between_evaluations():
    assert steps_to(curve(3.0, 2.5, 2.0), 2.25, False) == (625.0, False)
    assert steps_to(curve(0.1, 0.5, 0.9), 0.7, True) == (625.0, False)
    assert steps_to(curve(3.0, 2.5, 2.0), 2.0, False) == (750.0, False)
    assert steps_to(curve(3.0, 2.5, 2.4), 2.0, False) is None  # never
    assert steps_to(curve(1.9, 1.8, 1.7), 2.0, False) == (250.0, True)  # at once


def test_one_lucky_point_of_a_noisy_curve_does_not_count():
    noisy = curve(3.0, 1.9, 2.9, 2.4, 2.0, 1.8)
    step, at_once = steps_to(noisy, 2.0, False)
    assert step == 1250.0 and not at_once  # not 500, where it dipped
    assert steps_to(curve(1.9, 3.0, 2.9, 2.8), 2.0, False) is None  # a dip at the start alone


def test_steps_to_the_baselines_end_in_percent_by_seed():
    baseline = {s: curve(3.0, 2.5, 2.25, 2.0 + 0.01 * s) for s in range(3)}
    same = steps_to_target(baseline, baseline, False)
    assert same.percent.mean == pytest.approx(0) and same.never == 0 and str(same).startswith("0% ")
    faster = {s: curve(2.5, 2.0, 1.9, 1.8) for s in range(3)}
    found = steps_to_target(faster, baseline, False)
    assert found.percent.mean == pytest.approx(-50, abs=1) and str(found) == "51% fewer [49, 52]"
    assert found.percent.low < found.percent.mean < found.percent.high < 0


def test_never_reached_is_said_and_measured_at_the_arms_own_end():
    baseline = {s: curve(3.0, 2.5, 2.25, 2.0) for s in range(3)}
    slower = {s: curve(4.0, 3.0, 2.7, 2.5) for s in range(3)}  # ends at 1,000 where the baseline was at 500
    found = steps_to_target(slower, baseline, False)
    assert found.never == 3 and found.percent.mean == pytest.approx(100)
    assert str(found) == "not reached in 3 of 3; 100% more [100, 100] to its own end"
    mixed = steps_to_target({**slower, 0: curve(2.5, 2.0, 1.9, 1.8)}, baseline, False)
    assert mixed.never == 1 + 1 and str(mixed).startswith("not reached in 2 of 3; ")


def test_a_model_that_is_there_before_its_first_step_counts_as_after_one():
    """A converted model is measured at step 0 too."""
    steps, values = curve(1.9, 1.8, 1.7, 1.6)
    early = {s: (np.array([0, *steps[1:]]), values) for s in range(3)}
    found = steps_to_target(early, {s: curve(3.0, 2.5, 2.25, 2.0) for s in range(3)}, False)
    assert found.percent.mean == pytest.approx(100 * (1 / 1000 - 1)) and found.at_once == 3


def test_reached_at_once_is_a_bound():
    baseline = {s: curve(3.0, 2.5, 2.25, 2.0) for s in range(3)}
    found = steps_to_target({s: curve(1.9, 1.8, 1.7, 1.6) for s in range(3)}, baseline, False)
    assert found.at_once == 3 and found.percent.mean == pytest.approx(-75)
    assert str(found).endswith("a bound: at the first evaluation in 3 of 3")
    over = {s: curve(2.0, 2.5, 3.0, 3.5) for s in range(3)}  # overfits from the start: both are there at once
    assert steps_to_target(over, {s: curve(1.0, 1.5, 2.0, 2.5) for s in range(3)}, False).percent.mean is None
    assert str(steps_to_target({}, baseline, False)) == "-"


# -- curves ------------------------------------------------------------------------------------------------------------


def jittered(seeds: int, lift) -> dict:
    draw = np.random.default_rng(0)
    steps = np.arange(1, 21) * 50.0
    return {s: (steps, 3 - steps / 1000 + lift(steps) + 0.001 * draw.normal(size=20)) for s in range(seeds)}


def test_curves_that_lie_on_each_other_apart_and_that_close():
    base = jittered(5, lambda s: 0 * s)
    on = gaps(jittered(5, lambda s: 0 * s), base, 0.02)
    assert on.p_on < 0.001 and on.p_apart == 1.0 and on.closes == 100  # the first tenth is warm-up
    apart = gaps(jittered(5, lambda s: 0.1 + 0 * s), base, 0.02)
    assert apart.p_apart < 0.001 and apart.closes is None and apart.largest.mean == pytest.approx(0.1, abs=0.01)
    closing = gaps(jittered(5, lambda s: np.where(s < 500, 0.1, 0.0)), base, 0.02)
    assert closing.p_apart < 0.001 and closing.closes == 500 and closing.step < 500
    warm = gaps(jittered(5, lambda s: np.where(s < 100, 1.0, 0.0)), base, 0.02)
    assert warm.p_on < 0.001  # what warm-up does is left out
    assert gaps({0: base[0]}, base, 0.02) is None


def test_a_test_of_kind_curves_gives_a_verdict():
    base, other = jittered(3, lambda s: 0 * s), jittered(3, lambda s: 0.1 + 0 * s)
    rows, frame = [], []
    for norm, of in (("dyt", other), ("ln", base), ("twin", base)):
        for seed, (steps, values) in of.items():
            rows.append({"norm": norm, "seed": seed, "status": "finished", "final": values[-1],
                         "config_hash": f"{norm}{seed}"})  # fmt: skip
            frame += [(f"{norm}{seed}", "val/loss", s, v) for s, v in zip(steps, values, strict=True)]
    about = Rows(rows, ["norm"], False, metric="val/loss")
    curves = Curves(pd.DataFrame(frame, columns=["run", "metric", "step", "value"]))
    test = {**TEST, "kind": "curves", "margin": 0.02}
    apart = judge(test, about, curves=curves)
    assert apart.answer == "no" and "does not close" in apart.why and apart.p < 0.05
    on = judge({**test, "arm": {"norm": "twin"}}, about, curves=curves)
    assert on.answer == "yes" and "within the margin from step 100 on" in on.why
    assert judge(test, about).answer == "inconclusive"  # no curves
    gone = Rows(
        [{**r, "status": "diverged"} if r["norm"] == "dyt" else r for r in rows], ["norm"], False, metric="val/loss"
    )
    assert judge(test, gone, curves=curves).answer == "no"


# -- what is on disk ---------------------------------------------------------------------------------------------------


@pytest.fixture
def squash(tmp_path):
    shutil.copytree(ROOT / "results/squash", tmp_path / "results/squash")
    return tmp_path / "results"


def test_check_refuses_a_table_made_under_other_rules(squash):
    pairs = [(Study("squash"), "small")]
    assert written.check(pairs, squash) == []
    folder = squash / "squash/small"
    for name, now, then in (
        ("table.md", f"Rules of comparison {RULES}:", "Rules of comparison 1:"),
        ("verdicts.json", f'"rules": {RULES}', '"rules": 1'),
    ):
        text = (folder / name).read_text()
        assert now in text
        (folder / name).write_text(text.replace(now, then))
        (wrong,) = written.check(pairs, squash)
        assert f"{name} was made under rules 1, and {RULES} are the present ones" in wrong
        assert "type python scripts/reproduce.py squash --report" in wrong
        (folder / name).write_text(text)
    table = folder / "table.md"  # what the first version wrote said nothing of rules
    table.write_text(re.sub("^Rules of comparison.*\n", "", table.read_text(), flags=re.MULTILINE))
    assert "rules 1, and" in written.check(pairs, squash)[0]


def test_a_report_is_written_from_committed_rows_without_data(squash):
    folder = squash / "squash/small"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    for name in ("table.md", "verdicts.json", "figure.png"):
        (folder / name).unlink()
    assert written.report(Study("squash"), "small", squash) == folder / "table.md"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert written.report(Study("squash"), "smoke", squash) is None


def test_every_committed_verdict_says_its_rules_and_its_search():
    files = sorted((ROOT / "results").glob("*/*/verdicts.json"))
    assert len(files) >= 16
    for file in files:
        for verdict in json.loads(file.read_text()):
            assert verdict["rules"] == RULES and verdict["searched"], file
            if verdict["verdict"] in ("agrees", "disagrees", "reproduced", "contradicted", "level"):
                assert verdict["p_holm"] is None or verdict["p_holm"] < 0.05, verdict["says"]


def test_a_mean_curve_is_of_whole_runs_that_were_thinned_each_for_itself():
    """Two runs with other points kept, a third that diverged at step 300: the mean of the two goes on to the end."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from dyt.studies.showing.figures import PANELS

    kept = {"a": [0, 10, 500, 1000], "b": [0, 400, 990, 1000], "c": [0, 300]}
    curves = pd.DataFrame(
        [{"run": run, "metric": "train/loss", "step": s, "value": 4 - s / 500 + (run == "b")}
         for run, steps in kept.items() for s in steps]
    )  # fmt: skip
    rows = [{"norm": "dyt", "seed": n, "config_hash": run, "final": None if run == "c" else 2.0,
             "status": "diverged" if run == "c" else "finished"} for n, run in enumerate(kept)]  # fmt: skip
    panel = {"kind": "curves", "metric": "train/loss", "hue": "norm"}

    def drawn(rows):
        figure, axis = plt.subplots()
        PANELS["curves"](axis, Study("depth"), panel, Rows(rows, ["norm"], False), curves)
        (line,), (said,) = axis.get_lines(), axis.get_legend().get_texts()
        plt.close(figure)
        return line.get_xdata().tolist(), line.get_ydata().tolist(), said.get_text()

    steps, values, said = drawn(rows)
    assert steps == [0, 10, 400, 500, 990, 1000] and said == "DyT (1 diverged)"
    assert values == pytest.approx([4.5 - s / 500 for s in steps])
    assert drawn(rows[2:]) == ([0, 300], pytest.approx([4, 3.4]), "DyT (1 diverged)")  # all that there is


def test_isolation_marks_each_arms_best(monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from dyt.studies.showing.figures import PANELS

    about = asked({"dyt": {**INSIDE, "8e-3": [None] * 3}, "ln": INSIDE})
    _, axis = plt.subplots()
    study = Study("gain_init")
    PANELS["isolation"](axis, study, {"hue": "norm"}, about, None)
    stars = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "*"]
    assert stars == [2e-3, 2e-3] and any(line.get_marker() == "x" for line in axis.lines)
    assert "diverged" in axis.get_xlabel() and "star: best" in axis.get_xlabel()
    plt.close()


def test_a_figure_names_every_arm_alike_and_is_not_stretched_by_an_interval():
    """One colour an arm in all panels, an arm that only diverged too; crosses beside each other; one seed is hollow."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from dyt.studies.showing.figures import PANELS
    from dyt.studies.showing.styles import styles, tick

    lost = {lr: [None] * 3 for lr in INSIDE}
    wide = {"1e-3": [2.0, 2.1, 9.0], "2e-3": [1.9], "4e-3": [2.0, 2.0, 2.1]}
    about = asked({"dyt 1/1": lost, "dyt 0.2/5": lost, "layernorm": wide})
    _, axis = plt.subplots()
    PANELS["isolation"](axis, Study("gain_init"), {"hue": "norm"}, about, None)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["DyT 1/1", "DyT 0.2/5", "LayerNorm"]
    crosses = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if line.get_marker() == "x"]
    assert len(crosses) == len(set(crosses)) == 6
    hollow = [line.get_xdata()[0] for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert hollow == [2e-3] and axis.get_ylim()[1] < 5  # the interval of 1e-3 ends at 14
    plt.close()
    among = ["dyt 0.2/5", "dyt 1/1", "layernorm"]
    assert styles(["dyt 1/1"], among)["dyt 1/1"] == styles(among)["dyt 1/1"] != styles(["dyt 1/1"])["dyt 1/1"]
    assert len({style["color"] for style in styles([f"dyt {i}" for i in range(6)]).values()}) == 6
    assert [tick(level) for level in ("8e-3", "0.016", "1e-1", "0.5", "adamw")] == [
        "8e-3",
        "1.6e-2",
        "1e-1",
        "0.5",
        "adamw",
    ]


def test_interval_keeps_its_deviation():
    assert interval([1.0, 2.0, 3.0]).sd == pytest.approx(1.0) and Interval(1, 2.0).sd is None


def test_a_side_without_any_run_is_not_run_rather_than_inconclusive():
    known = [{"norm": "layernorm", "seed": s, "status": "finished", "final": 2.0 + s / 100} for s in range(3)]
    rows = Rows(known, ["norm"], False)
    for kind, more in (("difference", {}), ("parity", {"margin": 0.02})):
        test = {"kind": kind, "metric": "final", "arm": {"norm": "dyt"}, "against": {"norm": "layernorm"}, **more}
        found = judge(test, rows)
        assert (found.answer, found.why) == ("not run", "dyt (the arm) was not run")
        assert judge(test | {"arm": {"norm": "layernorm"}, "against": {"norm": "dyt"}}, rows).answer == "not run"
