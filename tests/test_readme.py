"""README: short enough to be read; README and pages: every number is what the rows say. Links: test_docs.py."""

import re
import shutil
import sys

import pytest

from dyt.efficiency import tables
from dyt.studies.running.rows import read_runs
from dyt.studies.running.study import Study, names
from dyt.studies.showing import demo, front, marked, overview, soak
from dyt.studies.statistics import interval

from .helpers import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import reproduce  # noqa: E402

README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "results"
NUMBER = re.compile(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?\w*")  # GPT-2 is a name, 7B a number


def prose(text: str) -> list[str]:
    """The sentences of a Markdown text, cells of tables too, without code, comments and where links lead."""
    text = re.sub(r"```.*?```|<!--.*?-->|`[^`\n]*`|\*\*", "", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    blocks = re.split(r"\n\s*\n|\n(?=[-|#])| \| |\|\n", text)
    return [sentence for block in blocks for sentence in re.split(r"(?<=[.!?:])\s+", " ".join(block.split()))]


def test_sentences_and_their_numbers_are_counted():
    text = "GPT-2 has 1.5 and 2,000 [here](a/3.md). Then\n7B\n\n| a 1 | 2 |\n`3 4` end"
    assert [len(NUMBER.findall(s)) for s in prose(text) if s] == [2, 1, 1, 1, 0]


def test_readme_is_short_enough_to_be_read():
    assert len(README.splitlines()) <= 220
    assert len(README.split()) <= 2300
    assert sum(line.startswith("|") for line in README.splitlines()) <= 25
    for sentence in prose(README):
        assert len(NUMBER.findall(sentence)) <= 4, sentence


def test_readme_has_its_sections_in_order():
    wanted = ["What was found", "For and against DyT", "Train, sweep, resume, look", "DyT in your own model"]
    wanted += ["From a laptop to a cluster", "The map", "Limits", "Cite"]
    assert re.findall(r"^## (.*)$", README, re.MULTILINE) == wanted
    before = README.partition("\n## ")[0]
    assert before.index("docs/img/front.png") < before.index("make demo") < before.index("make test")


def test_the_papers_recipes_are_costed():
    from dyt.studies.running.cost import dry_run

    told = dry_run(Study("batchnorm"), "paper", None, RESULTS, {})
    assert "device hours" in told.splitlines()[-1] and "python train.py model=resnet50 norm=dyt" in told


@pytest.mark.slow
@pytest.mark.parametrize("study", ["decision", "dino", "dit", "dna", "mae", "speech"])
def test_each_familys_study_is_costed(study):
    from dyt.studies.running.cost import dry_run

    assert "device hours" in dry_run(Study(study), "smoke", None, RESULTS, {}).splitlines()[-1]


# -- what programs write -------------------------------------------------------------------------------------------


@pytest.fixture
def copy(monkeypatch, tmp_path):
    """README, pages and results in a folder of their own."""
    shutil.copy(ROOT / "README.md", tmp_path)
    for name in ("docs", "results"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.setattr(marked, "ROOT", tmp_path)
    return tmp_path


def changed(text: str) -> str:
    """One digit of a text changed: the last, so that it is a result and no year or count of the setting."""
    at = [m.start() for m in re.finditer(r"\d", text)][-1]
    return text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]


def test_every_part_and_the_picture_are_what_the_rows_say():
    parts = reproduce.parts(RESULTS)
    assert marked.differs(parts, RESULTS) == [] and front.differs(RESULTS) == []
    assert {p.name for p in parts} >= {"front", "evidence", "findings", "verdicts", "demo", "soak", "bench-targets"}


@pytest.mark.parametrize("part", reproduce.parts(RESULTS), ids=lambda p: p.name)
def test_one_changed_digit_in_a_part_is_found(copy, part):
    """The line names the file, the part and what to type; filling it in again mends it."""
    (file,) = (f for f in marked.files() if f"<!-- {part.name}:" in f.read_text())
    inside = marked.between(part.name)
    file.write_text(file.read_text().replace(inside, changed(inside)))
    (line,) = (w for w in marked.differs([part], copy / "results") if f"part {part.name}" in w)
    assert line.startswith(f"{file.relative_to(copy)}: part {part.name} is not what the rows say; type ")
    assert marked.WRITES in line and part.command in line
    part.write(copy / "results")
    assert [w for w in marked.differs([part], copy / "results") if f"part {part.name}" in w] == []


@pytest.mark.slow
def test_the_command_says_so_and_mends_it(copy, monkeypatch, capsys):
    page = copy / "docs" / "speed.md"
    text = page.read_text()
    inside = marked.between("bench-step-cpu")
    page.write_text(text.replace(inside, changed(inside)))
    results = ["--results", str(copy / "results")]
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--check", *results])
    assert reproduce.main() == 1
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1 and told[0].startswith("docs/speed.md: part bench-step-cpu")
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--readme", *results])
    assert reproduce.main() == 0 and page.read_text() == text
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--check", *results])
    assert reproduce.main() == 0


@pytest.mark.parametrize(
    "name, part",
    [
        ("demo/rows.json", demo.PART),
        ("reliability/soak.json", soak.PART),
        ("efficiency/step-cpu.json", "bench-step-cpu"),
    ],
)
def test_one_changed_digit_in_the_rows_is_found(copy, name, part):
    part = next(p for p in tables.parts(RESULTS) if p.name == part) if isinstance(part, str) else part
    file = copy / "results" / name
    key = {"demo": '"final": ', "reliability": '"total": ', "efficiency": '"saved_mib": '}[name.partition("/")[0]]
    text = file.read_text()
    at = text.index(key) + len(key)
    file.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    wrong = [w for w in marked.differs([part], copy / "results") if f"part {part.name}" in w]
    assert any(w.startswith("docs/") for w in wrong)
    assert part.file is None or any(w.startswith(f"results/{part.file}") for w in wrong)


def test_a_picture_of_other_numbers_is_found(copy):
    front.write(copy / "results")
    assert front.differs(copy / "results") == []
    file = copy / "results/embed_scale/small/runs.csv"
    file.write_text(re.sub(r"3\.3476", "3.4476", file.read_text(), count=1))
    assert front.differs(copy / "results") == [
        "docs/img/front.png does not show what results/ says; type python scripts/reproduce.py --readme"
    ]
    front.write(copy / "results")
    assert front.differs(copy / "results") == []
    front.picture().write_bytes(b"no picture")
    assert len(front.differs(copy / "results")) == 1


def test_a_part_that_no_program_writes_and_one_that_stands_nowhere(copy):
    page = copy / "docs" / "running.md"
    page.write_text(page.read_text() + "\n<!-- mine: by hand -->\n1\n<!-- /mine -->\n")
    absent = marked.Part("absent", "make absent", lambda results: "2")
    wrong = marked.differs([absent], copy / "results")
    assert "docs/running.md: part mine is written by no program" in wrong
    assert wrong[-1] == "part absent stands neither in README.md nor in docs/"
    with pytest.raises(ValueError, match="has a part <!-- absent: ... -->"):
        marked.fill("absent", "2")


def test_a_text_with_a_number_that_is_not_there_is_refused(tmp_path):
    template = tmp_path / "t.md"
    for text, says in (
        ("{depth|dyt;3}", "depth has no such cell"),
        ("{paper|no-claim|dyt}", "no such number"),
        ("{depth|none;24|minus layernorm;3}", "depth has no such cell"),
        ("{depth@huge|none;24}", "depth has no scale huge"),
        ("{gpt_norms@medium|shakespeare;derf-gpt2}", "gpt_norms has no such cell"),
        ("{gpt_norms@medium|shakespeare;derf}", None),
        ("{gain_clip|gpt;layernorm}", None),
    ):
        template.write_text(text)
        if says:
            with pytest.raises(ValueError, match=says):
                overview.told(template, RESULTS)
        else:  # a cell that a study has and nobody ran
            assert overview.told(template, tmp_path) == "not run"
    template.write_text("{depth|none;24|best}, {gain_clip|gpt;dyt-fed 1/1|best}")
    rates = {}
    for r in read_runs(RESULTS / "gain_clip/small/runs.csv"):
        if (r["setting"], r["norm"]) == ("gpt", "dyt-fed 1/1") and r["lr"]:
            rates.setdefault(r["lr"], []).append(r["final"] if r["final"] is not None else 99)
    lowest = min(rates, key=lambda lr: sum(rates[lr]) / len(rates[lr]))
    assert overview.told(template, RESULTS) == f"not searched, {lowest}"
    template.write_text("{depth|none;24|seeds} and {depth|none;24|minus layernorm;24}")
    finals = [
        {
            r["seed"]: r["final"]
            for r in read_runs(RESULTS / "depth/small/runs.csv")
            if (r["norm"], r["depth"]) == (n, "24")
        }
        for n in ("none", "layernorm")
    ]
    found = interval([finals[0][seed] - finals[1][seed] for seed in finals[0]])
    assert overview.told(template, RESULTS) == f"3 and {found.mean:+.2f} ± {(found.high - found.low) / 2:.2f} nats"


def test_every_claim_of_the_papers_has_words():
    from dyt.studies.showing.table import claims
    from dyt.studies.showing.words import the_papers

    for name in names():
        for test in Study(name).tests:
            if test["claims"]:
                assert re.search(r"\d", the_papers(test, claims())), (name, test["says"])
