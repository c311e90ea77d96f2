"""Rows from others, held against ours or refused in one line; and the bundle, which loads back and whose sums hold."""

import json
import shutil

import pytest

from dyt.rundir.provenance import _git
from dyt.studies.judging.rules import asked, deviation
from dyt.studies.runner import StudyAt
from dyt.studies.running import rows as csv
from dyt.studies.running.study import Study
from dyt.studies.sharing import counter
from dyt.studies.sharing.counter import FAR, Both

from .helpers import ROOT, one_line, python

# -- counter-runs --------------------------------------------------------------------------------------------------------

SATURATION = Study("saturation")


@pytest.fixture(scope="module")
def planned():
    """A study on embedded data, with three seeds more than it was run with."""
    return StudyAt(SATURATION, "small", seeds=6)


@pytest.fixture
def at(planned, tmp_path):
    shutil.copytree(ROOT / "results/saturation", tmp_path / "results/saturation")
    planned.results, planned.folder = tmp_path / "results", tmp_path / "results/saturation/small"
    planned.rows = {}
    return planned


def made_elsewhere(row: dict, **changed) -> dict:
    """A row as another machine with a fresh clone of this repository would have it."""
    here = {"git_commit": _git("rev-parse", "HEAD") or "0" * 40, "git_dirty": False, "hardware": "Another CPU"}
    return {**row, **here, **changed}


def new_seeds(at, ours: list[dict]) -> list[dict]:
    found = []
    for hash, (run, _, _) in at.planned.items():
        if run.seed >= 3:
            like = next(r for r in ours if {f: r[f] for f in run.cell} == run.cell)
            own = {"seed": run.seed, "config_hash": hash, "overrides": csv.overrides(run), "final": 0.5}
            found.append(made_elsewhere(like, **own))
    return found


def test_merge_takes_new_rows_and_says_what_the_verdicts_were_and_are(at, tmp_path):
    """As CONTRIBUTING says: `reproduce.py saturation --merge theirs.csv` with rows of seeds 3 to 5."""
    ours = csv.read_runs(at.folder / "runs.csv", SATURATION)
    theirs = new_seeds(at, ours)
    was = json.loads((at.folder / "verdicts.json").read_text())
    csv.write_runs(tmp_path / "theirs.csv", [*ours, *theirs], SATURATION)  # a clone's file holds our rows too
    assert counter.seeds_in(tmp_path / "theirs.csv") == 6
    lines = at.merge(tmp_path / "theirs.csv")
    assert lines[0] == f"saturation: 0 runs that both have, {len(theirs)} new rows"
    now = json.loads((at.folder / "verdicts.json").read_text())
    assert [v["seeds"] for v in now] != [v["seeds"] for v in was]
    assert lines[1:] == [
        f"  {a['says']}: was {a['verdict']} with {a['seeds']} seeds, is {b['verdict']} with {b['seeds']} seeds"
        for a, b in zip(was, now, strict=True)
    ]
    merged = csv.read_runs(at.folder / "runs.csv", SATURATION)
    assert [r["final"] for r in merged if r["seed"] >= 3] == [0.5] * len(theirs) and len(merged) == len(ours + theirs)
    assert at.merge(tmp_path / "theirs.csv") == ["saturation: 0 runs that both have, 0 new rows"]  # once is enough


def test_runs_that_both_have_stand_side_by_side_and_ours_stay(at, tmp_path):
    ours = csv.read_runs(at.folder / "runs.csv", SATURATION)
    before = (at.folder / "runs.csv").read_bytes()
    sd = counter._over_all(SATURATION, asked(SATURATION, "small", ours)).sd
    assert deviation(SATURATION, "small", asked(SATURATION, "small", ours), at.results) is None  # too few to pool
    theirs = [
        made_elsewhere(ours[0], final=ours[0]["final"] + 0.5 * sd),
        made_elsewhere(ours[1], final=ours[1]["final"] - 4 * sd),
        made_elsewhere(ours[2], status="diverged", final=None),
    ]
    csv.write_runs(tmp_path / "theirs.csv", theirs, SATURATION)
    lines = at.merge(tmp_path / "theirs.csv")
    assert lines[0] == "saturation: 3 runs that both have, 0 new rows"
    assert lines[1].endswith(", +0.50 deviations: agrees") and f"ours {ours[0]['final']:.4f}" in lines[1]
    assert lines[2].endswith(", -4.00 deviations: differs")
    assert lines[3].endswith("theirs diverged: differs")
    assert lines[4].startswith("  1 of 3 agree: within 2.8 deviations between seeds")
    assert (at.folder / "runs.csv").read_bytes() == before


def test_agreement_of_two_numbers():
    assert Both("a", 2.0, 2.0, None).agrees is True and Both("a", None, None, None).agrees is True
    assert Both("a", 2.0, None, 0.1).agrees is False
    assert Both("a", 2.0, 2.1, None).agrees is None and "no deviation between seeds is known" in str(
        Both("a", 2.0, 2.1, None)
    )
    assert Both("a", 2.0, 2.02, 0.01).deviations == pytest.approx(2.0)
    assert Both("a", 2.0, 2.0 + 0.99 * FAR * 0.01, 0.01).agrees is True
    assert Both("a", 2.0, 2.0 - 1.01 * FAR * 0.01, 0.01).agrees is False


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"config_hash": "0123456789"}, r"made by another config \(the same words with another default\)"),
        (
            {"config_hash": "0123456789", "overrides": "norm=dyt seed=0"},
            r"made by another config \(a run that saturation has not\)",
        ),
        ({"data_sha256": "f" * 64}, r"made from other data: mnist5k has sha256 ffffffffff there and \w{10} here"),
        ({"config_hash": "0123456789", "data_sha256": "f" * 64}, "made from other data: mnist5k"),
        ({"seed": 5}, r"its hash \w{10} is that of seed 0, and the row says 5"),
        ({"norm": "derf"}, r"its hash \w{10} is that of norm \w+, and the row says derf"),
        ({"git_dirty": True}, r"made by changed code \(git_dirty\); commit or undo the changes and run again"),
        ({"git_commit": None}, "it does not name its git_commit"),
        ({"hardware": None}, "it does not name its hardware"),
        ({"torch": None}, "it does not name its torch"),
        ({"git_commit": "dead" * 10}, r"made by code that is not in this repository \(commit deaddeadde\)"),
    ],
)
def test_rows_of_another_config_data_or_code_are_refused(at, tmp_path, changed, says):
    if changed.get("git_commit") and _git("rev-parse") is None:
        pytest.skip("no git checkout knows commits")
    ours = csv.read_runs(at.folder / "runs.csv", SATURATION)
    before = (at.folder / "runs.csv").read_bytes()
    fine = made_elsewhere(ours[1], final=0.4)
    bad = made_elsewhere(ours[0], final=0.4, **changed) if "git_commit" not in changed else {
        **made_elsewhere(ours[0], final=0.4), **changed
    }  # fmt: skip
    csv.write_runs(tmp_path / "theirs.csv", [fine, bad], SATURATION)
    with pytest.raises(ValueError, match=f"1 of 2 rows are not of this study, data and code; the first, .*: {says}"):
        at.merge(tmp_path / "theirs.csv")
    assert (at.folder / "runs.csv").read_bytes() == before


def test_a_merge_without_a_file_or_rows_is_one_line(tmp_path):
    words = ["scripts/reproduce.py", "saturation", "--merge", str(tmp_path / "absent.csv")]
    assert one_line(python(*words, cwd=ROOT)) == (
        f"reproduce.py: --merge {tmp_path / 'absent.csv'}: no such file; give another machine's runs.csv"
    )
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="no rows in it; give another machine's runs.csv"):
        counter.read(tmp_path / "empty.csv", SATURATION, {}, [])
