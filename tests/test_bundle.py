"""Rows from others, held against ours or refused in one line; and the bundle, which loads back and whose sums hold."""

import json
import re
import shutil

import pytest
import yaml

from dyt.rundir.provenance import git
from dyt.studies.judging.rules import asked, deviation
from dyt.studies.runner import StudyAt
from dyt.studies.running import rows as csv
from dyt.studies.running.study import Study
from dyt.studies.sharing import bundle, counter
from dyt.studies.sharing.counter import FAR, Both

from .helpers import ROOT, one_line, python

# -- counter-runs ------------------------------------------------------------------------------------------------------

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
    here = {"git_commit": git("rev-parse", "HEAD") or "0" * 40, "git_dirty": False, "hardware": "Another CPU"}
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
    assert counter.seeds_in(tmp_path / "theirs.csv", SATURATION) == 6
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
    if changed.get("git_commit") and git("rev-parse") is None:
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


def test_what_is_no_table_of_the_studys_rows_is_said_of_the_file(tmp_path):
    """And not of its folder, which is a stranger's; what is no text is not printed."""
    table = ROOT / "results/saturation/small/runs.csv"
    head, rows = table.read_text().split("\n", 1)
    binary, file = (table.parent / "curves.parquet").read_bytes(), tmp_path / "theirs.csv"
    for held, says in (
        (
            f"{head},notes\n{rows}".encode(),
            "not rows of saturation: columns that the study has not: notes; missing: none",
        ),
        (
            head.replace(",final,", ",").encode(),
            "not rows of saturation: columns that the study has not: none; missing: final",
        ),
        (binary, "not a table of rows"),
        (b"PAR1\x15\x04\x15", "not a table of rows"),
        (f"{head}\n".encode() + binary, "not a table of rows"),
        (head.encode("utf-16"), "not a table of rows"),
        (f'{head}\n"{"x" * 200_000}'.encode(), "not a table of rows"),
    ):
        file.write_bytes(held)
        with pytest.raises(ValueError) as refused:
            counter.seeds_in(file, SATURATION)
        assert (
            str(refused.value) == f"--merge {file}: {says}; give another machine's runs.csv, as reproduce.py wrote it"
        )
        with pytest.raises(ValueError, match="--merge .*; give another machine's runs.csv, as"):
            counter.read(file, SATURATION, {}, [])
    words = ["scripts/reproduce.py", "saturation", "--merge"]
    said = f"reproduce.py: --merge {table.parent / 'curves.parquet'}: not a table of rows; give another machine's"
    assert one_line(python(*words, str(table.parent / "curves.parquet"), cwd=ROOT)).startswith(said)
    assert "not a table of rows" in one_line(python(*words, str(tmp_path), cwd=ROOT))


# -- the bundle --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """A bundle of two committed studies."""
    place = tmp_path_factory.mktemp("bundle")
    for name in ("saturation", "gradient_depth"):
        shutil.copytree(ROOT / "results" / name, place / "results" / name)
    bundle.write(place / "bundle", place / "results")
    return place / "bundle"


@pytest.mark.parametrize("name", bundle.TABLES)
def test_each_table_of_the_bundle_loads_back(bundled, tmp_path, name):
    import datasets

    found = datasets.load_dataset(str(bundled), name, split="train", cache_dir=str(tmp_path / "cache"))
    folders = [ROOT / "results" / study / "small" for study in ("gradient_depth", "saturation")]
    assert set(found.column_names) == set(bundle.TABLES[name][0])
    if name == "rows":
        want = [row for f in folders for row in csv.read_runs(f / "runs.csv", Study(f.parent.name))]
        assert found["config_hash"] == [r["config_hash"] for r in want] and found["final"] == [r["final"] for r in want]
        assert found["seed"] == [r["seed"] for r in want] and found.features["seed"].dtype == "int64"
        assert found["overrides"] == [r["overrides"] for r in want]
        assert json.loads(found["cell"][-1]) == {f: want[-1][f] for f in SATURATION.factors if want[-1][f]}
        assert json.loads(found["derived"][-1]) == pytest.approx({d: want[-1][d] for d in SATURATION.derived})
        assert found["git_dirty"] == [r["git_dirty"] == "True" for r in want]
    elif name == "curves":
        want = [csv.read_curves(f / "curves.parquet") for f in folders]
        assert len(found) == sum(map(len, want))
        assert found[-1]["value"] == pytest.approx(want[-1]["value"].iloc[-1])
        assert found[-1]["run"] == want[-1]["run"].iloc[-1] and found.features["value"].dtype == "float64"
    elif name == "claims":
        vit = next(c for c in found if c["id"] == "dyt-table1-vit-b")
        assert json.loads(vit["values"]) == {"layernorm": 82.3, "dyt": 82.5} and vit["verified"] is True
    elif name == "verdicts":
        want = [v for f in folders for v in json.loads((f / "verdicts.json").read_text())]
        assert [(v["says"], v["verdict"], v["claims"]) for v in found] == [
            (v["says"], v["verdict"], v["claims"]) for v in want
        ]
    else:
        assert sum(found["runs"]) == sum(len(csv.read_runs(f / "runs.csv")) for f in folders)
        assert all(found["hardware"]) and all(found["torch"]) and all(found["data_sha256"])


def test_a_changed_byte_of_the_bundle_is_found(bundled, tmp_path):
    assert bundle.differs(bundled) == []
    copy = tmp_path / "copy"
    shutil.copytree(bundled, copy)
    file = copy / "data" / "rows.parquet"
    bytes = bytearray(file.read_bytes())
    bytes[len(bytes) // 2] ^= 1
    file.write_bytes(bytes)
    (copy / "configs" / "train.yaml").unlink()
    (copy / "more.txt").write_text("more")
    assert bundle.differs(copy) == [
        "configs/train.yaml is missing",
        "data/rows.parquet was changed: its sha256 is not the one in SHA256SUMS",
        "more.txt is not named in SHA256SUMS",
    ]
    told = python("scripts/bundle.py", "--check", str(copy), cwd=ROOT)
    assert told.returncode == 1 and "data/rows.parquet was changed" in told.stdout


def test_the_same_results_make_the_same_bytes(bundled, tmp_path):
    bundle.write(tmp_path / "again", bundled.parent / "results")
    assert (tmp_path / "again" / bundle.SUMS).read_bytes() == (bundled / bundle.SUMS).read_bytes()


def test_a_bundle_that_cannot_be_finished_leaves_what_is_there(bundled, tmp_path, monkeypatch):
    shutil.copytree(bundled, tmp_path / "mine")
    (tmp_path / ".mine.part").mkdir()
    (tmp_path / ".mine.part" / "letter.txt").write_text("dear")

    def full(counts):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "card", full)
        with pytest.raises(OSError, match="No space left"):
            bundle.write(tmp_path / "mine", bundled.parent / "results")
    assert bundle.differs(tmp_path / "mine") == []
    bundle.write(tmp_path / "mine", bundled.parent / "results")
    assert sorted(place.name for place in tmp_path.iterdir()) == [".mine.part", "mine"]
    assert (tmp_path / ".mine.part" / "letter.txt").read_text() == "dear"
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "mine").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_card_says_what_the_results_do_not_support(bundled):
    text = (bundled / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert [c["config_name"] for c in header["configs"]] == list(bundle.TABLES) and header["license"] == "mit"
    page = (ROOT / "docs" / "findings.md").read_text()
    said = text.partition("## What these results do not support")[2].strip().splitlines()
    assert len(said) == page.count("**What these results do not support**: ") > 5
    headings = re.findall(r"^## (.*)", page, re.MULTILINE)
    assert all(re.fullmatch(r"- \*\*(.*?)\*\*: (.{20,})", line)[1] in headings for line in said)
    assert (bundled / "configs" / "study" / "saturation.yaml").is_file()


def test_a_folder_that_is_no_bundle_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds something that is no bundle; give another folder with --out"):
        bundle.write(tmp_path / "mine", ROOT / "results")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    with pytest.raises(ValueError, match="has no rows; type python scripts/reproduce.py first"):
        bundle.write(tmp_path / "bundle", tmp_path / "nothing")
    with pytest.raises(ValueError, match="has no SHA256SUMS; type make bundle"):
        bundle.differs(tmp_path / "mine")


def test_what_is_no_part_of_a_bundle_is_never_removed(bundled, tmp_path):
    other = tmp_path / "iso"
    other.mkdir()
    (other / "SHA256SUMS").write_text("abc  ubuntu.iso\n")
    (other / "ubuntu.iso").write_text("bytes")
    with pytest.raises(ValueError, match="iso holds something that is no bundle; give another folder with --out"):
        bundle.write(other, bundled.parent / "results")
    cloned = tmp_path / "cloned"
    shutil.copytree(bundled, cloned)
    (cloned / ".git").mkdir()
    (cloned / ".git" / "HEAD").write_text("ref")
    with pytest.raises(
        ValueError, match=r"cloned holds .git/HEAD, which is no part of the bundle; move it, or give --out"
    ):
        bundle.write(cloned, bundled.parent / "results")
    with pytest.raises(ValueError, match="ubuntu.iso: is a file; give a folder"):
        bundle.write(other / "ubuntu.iso", bundled.parent / "results")
    assert (other / "ubuntu.iso").read_text() == "bytes" and (cloned / ".git/HEAD").read_text() == "ref"


def test_a_bundle_that_was_stopped_halfway_is_made_again(bundled, tmp_path, monkeypatch):
    shutil.copytree(bundled.parent / "results", tmp_path / "results")
    card = bundle.card

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "card", stopped)
    with pytest.raises(KeyboardInterrupt):
        bundle.write(tmp_path / "bundle", tmp_path / "results")
    monkeypatch.setattr(bundle, "card", card)
    for _ in range(2):  # where there is none, and over one
        bundle.write(tmp_path / "bundle", tmp_path / "results")
        assert bundle.differs(tmp_path / "bundle") == []
    assert (tmp_path / "bundle" / bundle.SUMS).read_bytes() == (bundled / bundle.SUMS).read_bytes()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["bundle", "results"]
