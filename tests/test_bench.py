"""The benchmarks at toy size: that they run, and that their arithmetic holds. tests/test_readme.py has the page."""

import json
import re
import subprocess
import sys

import pytest
import torch

from dyt.config.compose import load
from dyt.efficiency import measure, tables, timing
from scripts import bench as command

from .helpers import ROOT, TINY_DINO, TINY_DIT, TINY_DNABERT, TINY_DT, TINY_MAE, TINY_VIT, TINY_WAV2VEC2

MIXED = ["data.mixup=0.8", "data.batch_size=8"]


def bench(*words):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts/bench.py"), *words], capture_output=True, text=True, timeout=300, cwd=ROOT
    )


# -- arithmetic --------------------------------------------------------------------------------------------------------


def test_ratio_of_medians_with_its_interval():
    base = [1.0, 1.1, 0.9, 1.0] * 10
    assert timing.ratio([2 * t for t in base], base) == {"median": 2.0, "low": 2.0, "high": 2.0}
    noisy = timing.ratio([2.0, 2.2, 1.8, 2.0] * 5 + [2.4, 2.6, 2.5, 2.5] * 5, base)
    assert noisy["low"] < noisy["median"] < noisy["high"] and 1.8 <= noisy["low"] and noisy["high"] <= 2.6


def test_ratio_of_what_is_left_after_taking_off_the_rest():
    rest, base, arm = [10.0] * 8, [14.0] * 8, [12.0] * 8
    assert timing.ratio(arm, base, rest) == {"median": 0.5, "low": 0.5, "high": 0.5}
    lost = timing.ratio(
        [10.0, 11.0, 9.0, 10.0] * 3, [10.0, 10.0, 10.0, 10.0, 9.0, 9.0, 9.0, 9.0] + [11.0] * 4, [10.0] * 12
    )
    assert lost["low"] is None and tables.times_of(lost) == "lost in noise"


@pytest.mark.parametrize(
    "paper, low, high, words",
    [
        (0.92, 0.90, 0.95, "agrees"),  # faster
        (0.92, 0.90, 1.01, "inconclusive"),
        (0.92, 1.00, 1.10, "disagrees"),
        (1.00, 0.98, 1.02, "agrees"),  # equal
        (1.00, 0.95, 1.02, "inconclusive"),
        (1.00, 1.04, 1.10, "disagrees"),
        (1.20, 1.10, 1.30, "agrees"),  # slower
        (1.20, 0.80, 0.90, "disagrees"),
        (1.20, None, None, "inconclusive"),
    ],
)
def test_verdict(paper, low, high, words):
    assert tables.verdict(paper, {"low": low, "high": high}) == words


def test_targets_say_held_not_held_and_not_measured(tmp_path):
    row = {"rows": 8192, "cols": 768, "dtype": "float32", "contender": "DyT (ours)"}
    row |= {
        "forward_of LayerNorm": {"median": 0.9, "low": 0.8, "high": 0.95},
        "forward_backward_of LayerNorm": {"median": 1.2, "low": 1.1, "high": 1.3},
        f"forward_of {tables.PAPER_EAGER}": {"median": 0.1, "low": 0.1, "high": 0.2},
    }
    (tmp_path / "op-cpu.json").write_text(json.dumps({"rows": [row]}))
    lines = tables.targets(tmp_path).splitlines()
    assert (
        "| 8192 x 768, float32: forward, time over that of LayerNorm | <= 1.0 | 0.900 [0.800, 0.950] | yes |" in lines
    )
    assert any(
        "forward + backward, time over that of LayerNorm" in line and line.endswith("| **no** |") for line in lines
    )
    assert any(tables.PAPER_EAGER in line and line.endswith("| yes, not certain |") for line in lines)
    assert any("CUDA" in line and "not measured: `python scripts/bench.py op --device cuda`" in line for line in lines)
    row |= {"rows": 16384, "cols": 4096, "dtype": "bfloat16", "bandwidth_of_copy": 0.84}
    row |= {"forward_backward_of DyT (liger-kernel)": {"median": 1.01, "low": 0.99, "high": 1.02}}
    (tmp_path / "op-cuda.json").write_text(json.dumps({"rows": [row]}))
    lines = [line for line in tables.targets(tmp_path).splitlines() if "CUDA" in line]
    assert lines[0].endswith("| >= 0.85 | 0.840 | **no** |")
    assert lines[1].endswith("| <= 1.0 | 1.010 [0.990, 1.020] | **no**, not certain |")


def test_kept_memory_is_not_filled_twice():
    """In a process of its own: the setting is the process's."""
    code = """
import resource, torch
from dyt.training.cpu import keep_freed_memory
def faults(mib):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(mib * 2**18)  # 256 pages a MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(64); a = faults(60); keep_freed_memory(); faults(64); print(a, faults(60))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    before, after = map(int, done.stdout.split())
    assert after < 1000 < before


def test_peak_is_the_most_held_at_once():
    def call():
        first = torch.ones(1000, 256)  # 1 MB
        second = first + 1
        del first
        return second + 1  # two at once, then two again

    assert timing.peak_bytes(call, "cpu") == pytest.approx(2 * 1000 * 256 * 4, abs=100)  # and a few scalars


# -- measuring, at toy size --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_op_has_every_contender():
    rows = measure.measure_op(40, 24, "cpu", torch.float32, 2)
    names = [r["contender"] for r in rows]
    assert names[0] == "no norm" and names[-1] == "copy" and {"LayerNorm", "DyT (ours)", "Derf (ours)"} < set(names)
    at = dict(zip(names, rows, strict=True))
    assert at["LayerNorm"]["forward_of LayerNorm"]["median"] == 1
    assert at["DyT (ours)"]["saved_mib"] <= at["DyT (as in the paper, eager)"]["saved_mib"]
    text = tables.op_table(rows)
    assert all(f"| {name} |" in text for name in names) and "40 x 24, float32" in text


@pytest.mark.slow
def test_step_compares_norms():
    rows = measure.measure_step("gpt_nano", ["layernorm", "dyt"], "cpu", 2)
    assert rows[0]["of layernorm"]["median"] == 1 and 0.5 < rows[1]["of layernorm"]["median"] < 2
    assert rows[1]["saved_mib"] <= rows[0]["saved_mib"]


@pytest.mark.slow
def test_model_gives_a_verdict_on_each_latency_claim():
    sizes = {"dim": 32, "depth": 1, "heads": 2, "context": 16, "mlp_dim": 64}
    rows = measure.measure_model(sizes, "cpu", torch.float32, 2, False)
    rows += [row | {"compiled": True} for row in rows]  # compiling takes a minute
    text = tables.model_table(rows)
    judged = [line for line in text.splitlines() if line.startswith("| dyt-table")]
    assert len(judged) == 8 and all(
        line.split("|")[4].strip() in ("agrees", "disagrees", "inconclusive") for line in judged
    )
    assert len({line.split("|")[1] for line in judged}) == 8


@pytest.mark.slow
def test_profile_accounts_for_the_whole_step():
    row = measure.measure_profile("gpt_nano", "dyt", 12)
    parts = row["parts_ms"]
    assert sum(parts.values()) == pytest.approx(row["step_ms"], rel=0.01)
    for part in ("norm", "matrix products", "attention", "optimizer", "data", "logging"):
        assert parts[part] > 0, part
    # A pause of the machine goes into everything else, and is no operator.
    assert parts["matrix products"] == max(ms for part, ms in parts.items() if part != "everything else")
    assert "matrix products, %" in tables.profile_table([row])


@pytest.mark.slow
def test_the_step_of_a_recipe_is_the_runs_own(monkeypatch):
    """A task that prepares its batches; precision, pieces and threads as typed."""
    from dyt.tasks.mae import build

    small = ["data.batch_size=8", "trainer.precision=bf16", "trainer.micro_batch=4", "optim.lr=1.0"]
    mae, seen = type(build(load(TINY_MAE), 0)), []
    loss = mae.loss

    def spied(self, model, inputs, targets):
        seen.append((torch.is_autocast_enabled("cpu"), torch.get_num_threads(), len(targets)))
        return loss(self, model, inputs, targets)

    monkeypatch.setattr(mae, "loss", spied)
    (row,) = measure.measure_data(2, [*TINY_MAE, *small])
    assert seen == [(True, 1, 4)] * 6  # of three steps two pieces each
    assert row["model"] == "mae_nano" and row["taken"]["median"] > 0 and row["rate"]["median"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("words", [TINY_DIT, TINY_DINO, TINY_DT, TINY_WAV2VEC2, TINY_DNABERT, [*TINY_VIT, *MIXED]])
def test_every_task_has_a_step_to_measure(words):
    (row,) = measure.measure_data(2, list(words))
    assert row["taken"]["median"] > 0
    with pytest.raises(ValueError, match="mixup and cutmix need an even one"):
        measure.measure_data(2, [*TINY_VIT, *MIXED, "trainer.micro_batch=1"])


@pytest.mark.slow
def test_data_rates():
    rows = measure.measure_data(2)
    assert [r["unit"] for r in rows] == ["images a second", "tokens a second"]
    assert all(r["rate"]["median"] > 100 for r in rows)


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, says",
    [
        (["op", "--rounds", "1"], "--rounds 1: type 2 or more"),
        (["profile", "--device", "cuda"], "type --device cpu"),
        (["ops"], "invalid choice: 'ops'"),
        (["data", "--readme", "--out", "elsewhere"], "leave out --out"),
        (["data", "--out", "/dev/null/here"], "type a folder that can be written"),
    ],
)
def test_refusals(words, says):
    done = bench(*words)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words, says",
    [
        (["scaling", "--device", "cuda"], "--device cuda: scaling looks at the CPU; type --device cpu"),
        (["scaling", "--json"], "--json: scaling does not look at it; leave it out"),
        (["scaling", "--readme"], "--readme: scaling does not look at it"),
        (["scaling", "--fresh-memory"], "--fresh-memory: scaling does not look at it"),
        (["scaling", "--out", "/proc/nowhere"], "type a folder that can be written"),
        (["profile", "--fresh-memory"], "--fresh-memory: profile does not look at it"),
        (["data", "model=gpt_nano", "--readme"], "--readme: data of a recipe does not look at it"),
        (["data", "model=gpt_nano", "--out", "here"], "--out: data of a recipe does not look at it"),
    ],
)
def test_what_a_benchmark_does_not_look_at_is_refused(words, says, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.py", *words])
    monkeypatch.setattr(command, "scaling", None)  # it would take minutes
    with pytest.raises(SystemExit) as ended:
        command.main()
    said = capsys.readouterr()
    assert ended.value.code == 2 and says in said.err.splitlines()[-1] and not said.out


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said():
    done = bench("op", "--device", "cuda")
    assert done.returncode == 2 and "torch sees no GPU here; type --device cpu" in done.stderr


@pytest.mark.slow
def test_data_writes_rows_and_table(tmp_path):
    done = bench("data", "--rounds", "2", "--out", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "data-cpu.json").read_text())
    assert json.loads(done.stdout) == written["rows"] and written["provenance"]["hardware"]
    assert "| mnist5k | images a second |" in (tmp_path / "data-cpu.md").read_text()
    assert "not measured" in (tmp_path / "targets.md").read_text()


@pytest.mark.slow
def test_overhead_compares_the_loop_with_a_bare_step():
    words = [sys.executable, str(ROOT / "scripts/maintain/overhead.py"), "rounds=2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert 0.5 < float(done.stdout.rpartition("ratio ")[2].split()[0]) < 2


@pytest.mark.slow
def test_data_says_whether_loading_keeps_up():
    words = ["model=gpt_nano", "model.dim=16", "model.depth=2", "model.heads=2", "model.context=16"]
    done = bench("data", *words, "--rounds", "2")
    assert done.returncode == 0, done.stderr
    assert "gpt_nano takes" in done.stdout and re.search(r"(yes|only just|no\*\*.*) \([\d.,]+ times\)", done.stdout)
    slow = {"data": "x", "unit": "images a second", "model": "m", "rate": timing.spread([50.0] * 3), "workers": 0}
    assert "**no**, more data.workers (0.5 times)" in tables.data_table([slow | {"taken": timing.spread([100.0] * 3)}])
    assert "keeps up" not in tables.data_table([slow])
