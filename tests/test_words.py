"""A verdict's numbers in words: the papers' and ours, with names, unit, interval and seeds."""

import pytest

from dyt.studies.judging.verdicts import Rows, judge
from dyt.studies.running.study import Study
from dyt.studies.showing import words
from dyt.studies.showing.table import claims


def rows_of(values: dict[str, list], **more) -> list[dict]:
    """A row per level of `norm` and seed; None diverged."""
    return [
        {"norm": norm, "seed": seed, "status": "finished" if v is not None else "diverged", "final": v, **more}
        for norm, finals in values.items()
        for seed, v in enumerate(finals)
    ]


def found(test: dict, rows: list[dict], study: Study) -> str:
    test = {"claims": [], "metric": "final", "where": {}, "against": {}, **test}
    about = Rows(rows, [*study.factors], study.higher_is_better)
    return words.ours(test, judge(test, about), about, study)


TWO = {"kind": "difference", "arm": {"norm": "dyt"}, "against": {"norm": "layernorm"}}


def test_two_arms_of_a_loss():
    rows = rows_of({"layernorm": [2.10, 2.09, 2.11], "dyt": [2.30, 2.30, 2.32]})
    assert found(TWO, rows, Study("depth")) == "LayerNorm 2.10 -> DyT 2.31 nats, +0.21 ± 0.01, 3 seeds"


def test_two_arms_of_an_accuracy_are_in_percent():
    rows = rows_of({"layernorm": [0.48, 0.49, 0.47], "dyt": [0.49, 0.50, 0.48]})
    assert found(TWO, rows, Study("vit_norms")) == "LayerNorm 48.0 -> DyT 49.0 % top-1, +1.0 ± 0.0 points, 3 seeds"


def test_what_diverged_is_said_and_not_averaged():
    rows = rows_of({"layernorm": [2.0, 2.1, 2.2, 2.3], "dyt": [2.1, None, 2.4, 2.4]})
    assert found(TWO, rows, Study("depth")) == (
        "LayerNorm 2.17 -> DyT 2.30 nats, +0.13 ± 0.14, 3 seeds; DyT diverged in 1 of 4"
    )
    rows = rows_of({"layernorm": [None] * 3, "dyt": [None] * 3})
    assert found(TWO, rows, Study("depth")) == "LayerNorm diverged in 3 of 3; DyT diverged in 3 of 3"


def test_trend_best_and_diverges():
    rows = [
        {"norm": "dyt", "depth": d, "seed": s, "status": "finished", "final": 3 - int(d) / 10 + s / 1000}
        for d in "248"
        for s in range(3)
    ]
    study = Study("depth")
    trend = {"kind": "trend", "arm": {"norm": "dyt"}, "over": "depth", "sign": "-"}
    told = found(trend, rows, study)
    assert told.startswith("the loss falls with depth: rank correlation -0.9") and told.endswith(", 3 seeds")
    for row in rows:
        row["final"] = [2.0, 2.2, 2.1][row["seed"]]
    assert found(trend, rows, study).startswith("no clear trend of the loss with depth: rank correlation ")
    best = {"kind": "best", "arm": {"norm": "dyt"}, "over": "depth", "level": "2"}
    for row in rows:
        row["final"] = 2 - int(row["depth"]) / 10 + row["seed"] / 100
    assert found(best, rows, study) == "depth 8 is better than 2 (+0.600 ± 0.000 nats), 3 seeds"
    best["level"] = "8"
    assert found(best, rows, study).startswith("depth 8 is best of 2, 4, 8")
    gone = {"kind": "diverges", "arm": {"norm": "dyt", "depth": "8"}}
    assert found(gone, rows, study) == "0 of 3 runs diverged or ended no better than chance"


@pytest.mark.parametrize(
    "name, metric, values, says",
    [
        ("alpha_tracks_std", "alpha_std_rank", [0.5, 0.5, 0.5],
         "rank correlation +0.50 ± 0.00 between alpha and 1 / std over the layers, 3 seeds"),
        ("gradient_depth", "gradient_ratio", [1.0, 1.0, 1.0],
         "the first block's gradient is 10.00 times the last's (10.00 to 10.00), 3 seeds"),
        ("ln_scurve", "tanh_gain_learned", [-0.02, -0.02, -0.02],
         "what a tanh explains of a layer's output beyond a line changes by -2.0 ± 0.0 points in training, 3 seeds"),
    ],
)  # fmt: skip
def test_metrics_that_are_no_loss_have_words_of_their_own(name, metric, values, says):
    rows = [
        {"norm": "dyt", "seed": s, "status": "finished", "final": 2.0, metric: value} for s, value in enumerate(values)
    ]
    assert found({"kind": "difference", "arm": {"norm": "dyt"}, "metric": metric}, rows, Study(name)) == says


def test_a_weak_baseline_is_said():
    about = Rows(rows_of({"layernorm": [3.0] * 3, "dyt": [2.0] * 3}), ["norm"], False)
    test = {"claims": [], "metric": "final", "where": {}, **TWO}
    assert words.ours(test, judge(test, about, "layernorm is at 3, and 2 is needed"), about, Study("depth")) == (
        "not compared: layernorm is at 3, and 2 is needed"
    )


def test_undertuned_level_and_curves_say_why():
    from dyt.studies.judging.verdicts import Finding
    from dyt.studies.statistics import Interval

    about = Rows(rows_of({"layernorm": [2.0] * 3, "dyt": [2.1] * 3}), ["norm"], False)
    test = {"claims": [], "metric": "final", "where": {}, **TWO}
    for answer in ("undertuned", "level"):
        told = words.ours(test, Finding(answer, "because", Interval(3, 0.1, 0.1, 0.1), 3), about, Study("depth"))
        assert told == "LayerNorm 2.00 -> DyT 2.10 nats, +0.100 ± 0.000, 3 seeds; because"
    gap = Finding("no", "the curves lie apart, at step 500", Interval(3, 0.2, 0.1, 0.3), 3)
    assert words.ours({**test, "kind": "curves"}, gap, about, Study("depth")) == (
        "largest gap +0.200 ± 0.100 nats, 3 seeds; the curves lie apart, at step 500"
    )


@pytest.mark.parametrize(
    "study, says, want",
    [
        ("vit_norms", "DyT is on a par with LayerNorm in a ViT", "LayerNorm 82.3 -> DyT 82.5 % top-1, ViT-B"),
        ("gpt_norms", "LLaMA 7B", "RMSNorm 1.59 -> DyT 1.60 nats, LLaMA 7B, The Pile, 200B tokens"),
        ("squash", "tanh beats identity", "identity diverged at 61.0 -> tanh 82.5 % top-1, ViT-B"),
        ("batchnorm", "DyT is worse than BatchNorm in a R", "BatchNorm 76.2 -> DyT 68.9 % top-1, ResNet-50"),
        ("alpha_absent", "tanh with a learned", "without alpha 81.1 -> with alpha 82.5 % top-1, ViT-B"),
        ("alpha_init", "LLaMA 7B does best", "0.8/0.2 (attention/other) is best, LLaMA 7B"),
    ],
)
def test_the_papers_numbers(study, says, want):
    test = next(t for t in Study(study).tests if t["says"].startswith(says))
    assert words.the_papers(test, claims()) == want


def test_names():
    told = {"dyt-fed 0.2/5": "DyT 0.2/5", "layernorm-fed": "fed LayerNorm", "none-fed": "no norm", "tanh": "tanh"}
    told |= {"dyt-0.5": "DyT alpha0 0.5", "dyt-2 plain": "DyT alpha0 2 plain", "dyt 0.8/0.2": "DyT 0.8/0.2"}
    told |= {"sigma_reparam": "sigmaReparam", "per channel": "per channel", "1/sqrt(d)": "1/sqrt(d)"}
    assert {level: words.name(level) for level in told} == told


def test_a_number_that_no_claim_has_is_refused():
    test = {"claims": ["dyt-table1-vit-b"], "paper": "{nothing}", "arm": {}}
    with pytest.raises(ValueError, match="none of dyt-table1-vit-b has it"):
        words.the_papers(test, claims())
