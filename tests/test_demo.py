"""The demo's table: what is missing shows as missing, divergence as such, and the lesson is what the rows say."""

import json
import sys

import pytest

from dyt.config.compose import load
from dyt.config.identity import config_hash
from dyt.studies.showing.demo import lesson, table

from .helpers import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import demo  # noqa: E402


def test_table(tmp_path):
    plan = type("Plan", (), {"dir": tmp_path, "config": {"norm": {"alpha_init": 0.2, "gamma_init": "inverse_alpha"}}})
    rows = [{"step": s, "tokens_per_s": 1000.0 * s} for s in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    summary = {"model": "m", "norm": "dyt", "parameters": 1234, "final": {}, "best": {"val/loss": {"value": 1.5}}}
    summary |= {"step": 3, "tokens": 300, "status": "diverged"}
    assert table([demo.row(plan, summary)]).splitlines()[2:] == [
        "| m | dyt (alpha0 0.2, gamma0 5) | 1,234 | - | 1.5000 | - | 50.0 | 3 | diverged |"
    ]


def test_the_lesson_is_what_the_rows_say():
    rows = [{"model": "m", "norm": "dyt", "final": 2.0}, {"model": "m", "norm": "dyt_unit_gain", "final": 1.5}]
    assert "from" not in lesson(rows[:1])
    assert "goes from 2.00 to 1.50 in m; so try another start" in lesson(rows)
    rows[1]["final"] = 2.5
    assert "goes from 2.00 to 2.50 in m; here the other start did not always help" in lesson(rows)
    rows[1]["final"] = None  # diverged
    assert lesson(rows) == ""


def test_the_demo_leaves_what_is_committed_as_it_is():
    """So that ``make test`` passes after ``make demo``."""
    at = demo.folder_of(readme=False)
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    assert at.relative_to(ROOT).parts[0] in ignored
    assert demo.folder_of(readme=True) == ROOT / "results" / "demo"


def test_the_ten_runs_differ_only_in_the_norm():
    """Within a family, config hashes agree once the norm is taken out."""
    plans = demo.plans()
    assert len(plans) == 10 and len({p.hash for p in plans}) == 10
    for family in (plans[:5], plans[5:]):
        assert [p.config["norm"]["name"] for p in family] == list(demo.NORMS)
        same = {config_hash(p.config | {"norm": {}}, p.data_sha256) for p in family}
        assert len(same) == 1
    gpt = load(["experiment=demo_gpt"])["model"]
    assert (gpt["embed_scale"], gpt["embed_std"]) == ("learnable", "rsqrt_dim")
    assert plans[7].config["norm"]["alpha_init"] == 1.0 and plans[8].config["norm"]["alpha_init"] == 0.2


def test_in_a_pipe_the_demo_says_how_far_it_is(capsys, monkeypatch):
    import threading

    assert demo.EVERY <= 30
    monkeypatch.setattr(demo, "EVERY", 0)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    threading.Timer(1.5, done.set).start()
    demo.wait_for([thread], {"vit": "step 10/620: loss 2.0"})
    assert "step 10/620: loss 2.0" in capsys.readouterr().out


def test_a_word_that_the_demo_does_not_know_starts_nothing(monkeypatch, capsys):
    monkeypatch.setattr(demo, "train", None)
    with pytest.raises(SystemExit, match="2"):
        demo.main(["--reedme"])
    assert "unrecognized arguments: --reedme" in capsys.readouterr().err


def test_a_run_that_a_signal_ended_is_no_success(monkeypatch):
    class Killed:
        stdout = ()

        def wait(self):
            return -9

    monkeypatch.setattr(demo.subprocess, "Popen", lambda *_, **__: Killed())
    codes = {}
    demo.train("vit", 0, codes, {"vit": ""})
    assert codes == {"vit": 9}
