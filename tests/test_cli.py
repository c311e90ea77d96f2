"""The commands as a person types them."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

from dyt.config.compose import load, options

from .helpers import (
    ROOT,
    TINY_GPT,
    TINY_VIT,
    one_line,
    python,
    rows_of,
    shrunk,
    train,
)

SHORT = ["trainer.max_steps=6", "trainer.eval_every=3", "trainer.eval_batches=1", "trainer.log_every=2"]

GPT_RUN = [*TINY_GPT, *SHORT, "data=hf_text", "data.path=words"]


def last_line(done) -> str:
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def gpt_run(tmp_path_factory):
    """(folder it ran in, its run directory, what it printed) of one small language model."""
    home = tmp_path_factory.mktemp("gpt")
    (home / "words").mkdir()
    for split, lines in (("train", 900), ("val", 90), ("test", 80)):
        (home / "words" / f"{split}.txt").write_text("".join(f"line {i} of {split}\n" for i in range(lines)))
    done = python("train.py", *GPT_RUN, cwd=home)
    assert done.returncode == 0, done.stderr
    return home, home / last_line(done), done


def test_train_prints_one_block_and_the_directory_last(gpt_run):
    home, folder, done = gpt_run
    assert (folder / "metrics.jsonl").is_file() and (folder / "summary.json").is_file()
    assert {p.name for p in home.iterdir()} == {"runs", "words"}  # nothing is left beside them
    head = done.stdout.splitlines()[:6]
    assert [line.split()[0] for line in head] == ["model", "data", "device", "batch", "run", "logger"]
    assert "dyt at attn 2, mlp 2, final 1" in head[0] and "6 steps" in head[3] and "cpu, 1 threads, fp32" in head[2]
    assert "step 2/6: loss" in done.stdout  # a pipe gets lines, not a bar
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["name"] == "gpt_nano"


def test_again_it_says_finished_before_heavy_imports(gpt_run):
    home, folder, _ = gpt_run
    watch = f"import sys, runpy; sys.argv = sys.argv[1:]; sys.path.insert(0, {str(ROOT)!r})\n"
    watch += "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    watch += "finally: assert not {'torch', 'timm', 'datasets', 'wandb'} & set(sys.modules)"
    done = python("-c", watch, str(ROOT / "train.py"), *GPT_RUN, cwd=home)
    assert done.returncode == 0, done.stderr
    run = folder.relative_to(home)
    assert done.stdout.splitlines() == [f"already finished: {run}", str(run)]


@pytest.mark.parametrize("split", ["val", "test"])
def test_eval_uses_the_runs_config(gpt_run, split):
    home, folder, _ = gpt_run
    done = python("eval.py", f"run={folder.relative_to(home)}", f"split={split}", "ckpt=last", cwd=home)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((folder / "eval.json").read_text())
    assert result["step"] == 6 and 0 < result[f"{split}/loss"] < 8


def test_eval_samples_text_from_a_raw_prompt(gpt_run):
    home, folder, _ = gpt_run
    prompt = 'it\'s a=b, "c" & {d}'
    words = [f"run={folder.relative_to(home)}", "sample=20", f"prompt={prompt}", "seed=3"]
    first, again = (python("eval.py", *words, cwd=home) for _ in range(2))
    assert first.returncode == 0 and first.stdout.startswith(prompt) and first.stdout == again.stdout


@pytest.mark.slow
def test_eval_reads_other_text_with_the_runs_own_vocabulary(tmp_path):
    """Same size, other letters: the run's characters count, and one it does not know is named."""
    (tmp_path / "a.txt").write_text("abcdefghij \n" * 400)
    (tmp_path / "b.txt").write_text("jihgfedcba \n" * 400)
    (tmp_path / "c.txt").write_text("klmnopqrst \n" * 400)
    words = [*TINY_GPT, *SHORT, "data=hf_text", "data.tokenizer=char", "data.path=a.txt", "optim.lr=0.01"]
    run = last_line(python("train.py", *words, cwd=tmp_path))
    same, other = (python("eval.py", f"run={run}", f"data.path={f}.txt", cwd=tmp_path) for f in "ab")
    assert json.loads(same.stdout)["val/loss"] != json.loads(other.stdout)["val/loss"]
    refused = one_line(python("eval.py", f"run={run}", "data.path=c.txt", cwd=tmp_path))
    assert "characters outside the vocabulary: 'k' 'l'" in refused


@pytest.mark.parametrize("writable", [True, False])
def test_eval_prints_its_metrics_whether_they_can_be_kept_or_not(writable, tmp_path, monkeypatch, capsys, caplog):
    from PIL import Image

    import eval as evaluation

    run = tmp_path / "run"
    run.mkdir() if writable else run.write_text("no folder")
    monkeypatch.setattr(evaluation, "evaluate_run", lambda given: ({"val/loss": 1.5}, Image.new("L", (1, 1))))
    assert evaluation.main([f"run={run}"]) == 0
    assert json.loads(capsys.readouterr().out) == {"val/loss": 1.5}
    if writable:
        assert sorted(p.name for p in run.iterdir()) == ["eval.json", "eval.png"] and not caplog.messages
    else:
        assert caplog.messages == [f"run={run}: eval.json is not kept there (Not a directory)"]


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "run=<run directory> is missing"),
        (["run=nowhere"], "not a run directory (no config.yaml)"),
        (["run=R", "split=train"], "split=train: choose from val, test"),
        (["run=R", "ckp=best"], "ckp=best: did you mean 'ckpt'? type key=value; keys: run, ckpt"),
        (["run=R", "sample=many"], "sample=many: needs a number of at least 1"),
        (["run=R", "top_k=5", "ckpt=last"], "top_k=5: is of text that is written; add sample=200, or leave it out"),
        *(
            (
                ["run=R", "sample=5", word],
                f"{word}: is of a measurement, and sample= and prompt= write text; leave it out",
            )
            for word in ("split=test", "data.path=x", "steps=7", "guidance=3", "samples=8")
        ),
        (["run=R", "data.path=nowhere"], "data.path=nowhere: no such file or folder"),
    ],
)
def test_eval_refusals(gpt_run, words, message):
    home, folder, _ = gpt_run
    assert message in one_line(python("eval.py", *[w.replace("=R", f"={folder}") for w in words], cwd=home))


@pytest.mark.slow
def test_eval_executes_nothing_of_a_strangers_run(gpt_run, tmp_path):
    """A config with a _target_ and a checkpoint with a pickled call: refused, not run."""
    import pickle
    import shutil

    from dyt.rundir.files import sha256_of, write_json

    run = tmp_path / "run"
    shutil.copytree(gpt_run[1], run)

    class Trap:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/sprung",))

    for kind in ("best", "step"):
        for manifest in (run / "checkpoints").glob(f"{kind}-*.json"):
            file = manifest.with_suffix(".pt")
            file.write_bytes(pickle.dumps(Trap(), protocol=2))
            write_json(manifest, {"file": file.name, "sha256": sha256_of(file), "step": 6})
        done = python("eval.py", f"run={run}", f"ckpt={'last' if kind == 'step' else 'best'}", cwd=gpt_run[0])
        assert done.returncode == 1 and "not plain tensors" in done.stderr and "Traceback" not in done.stderr
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(
        text.replace("model:\n", f"model:\n  _target_: os.system\n  command: touch {tmp_path}/sprung\n")
    )
    assert python("eval.py", f"run={run}").returncode == 1
    (run / "config.yaml").write_text("a: !!python/object/apply:os.system ['touch sprung']")
    assert "config.yaml is damaged" in one_line(python("eval.py", f"run={run}"))
    assert not (tmp_path / "sprung").exists() and not os.path.exists("sprung")


def test_eval_writes_nothing_where_a_strangers_config_says(tmp_path):
    _, folder = train(*TINY_GPT, *SHORT, "logger.mode=disabled")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("cache_dir: null", f"cache_dir: {tmp_path}/elsewhere"))
    assert python("eval.py", f"run={folder}").returncode == 0
    assert (folder / "eval.json").exists() and not (tmp_path / "elsewhere").exists()


def test_no_name_in_a_config_leads_out_of_the_run_directory(tmp_path):
    names = [
        "model.name=../../up",
        "norm.name=/abs/olute",
        "data.name=..",
        "tag='../../<b>up</b>'",
    ]
    summary, folder = train(*TINY_GPT, *SHORT, *names, "logger.mode=offline", out="deep/runs")
    assert summary["status"] == "finished"
    assert folder.resolve().parent == (tmp_path / "deep/runs/default").resolve()
    assert [p.name for p in tmp_path.iterdir()] == ["deep"] and not (tmp_path.parent / "up").exists()
    with pytest.raises(ValueError, match="choose from"):
        train("experiment=../experiment/demo_gpt")


@pytest.mark.parametrize(
    "words, message",
    [
        (["norm=dty"], "train.py: norm=dty: unknown; did you mean 'dyt'? choose from batchnorm, derf"),
        (["model=gpt_nano", "data=cifar10"], "choose data from hf_text"),
        (["-m", "norm=dyt,layernrm"], "norm=layernrm: unknown; did you mean 'layernorm'?"),
        (["-m", "norm=dyt", "seed=0,x"], "seed=x: needs a whole number"),
        (["-m", "optim.lr=interval(0,1)"], "has no values to list; type them: optim.lr=1,2 or range(1,9)"),
        (["norm.sites.stem.alpha_init=1"], "norm.sites.stem.alpha_init: model=vit_tiny has no site 'stem'"),
        (["data.path=nowhere"], "data.path=nowhere: no such file or folder"),
        (["model=gpt_nano", "init_from=nowhere"], "init_from=nowhere: neither a run directory"),
        (["trainer.device=cuda"], "device=cuda: torch sees no GPU here; type cpu"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(words, message, tmp_path):
    import torch

    if torch.cuda.is_available() and "trainer.device=cuda" in words:
        pytest.skip("this machine has a GPU")
    assert message in one_line(python("train.py", *words, cwd=tmp_path))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_sweep_runs_all_skips_what_is_finished_and_goes_on_past_failures(tmp_path):
    words = [*TINY_GPT, *SHORT, "optim.warmup_steps=0", "optim.clip_grad=null", "trainer.log_every=1"]
    sweep = ["-m", *words, "norm=none,layernorm", "optim.lr=1e-3,1e25", "model.heads=2"]
    first = python("train.py", *sweep, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    table = first.stdout.strip().splitlines()[-5:]
    assert table[0].split()[:3] == ["status", "val/loss", "val/top1"]
    assert [row.split()[0] for row in table[1:]] == ["finished", "diverged", "finished", "diverged"]
    again = python("train.py", *sweep, cwd=tmp_path)
    assert again.stdout.count("already finished") == 2 and again.stdout.count("already diverged") == 2

    # One that cannot be built (3 heads of 16 channels) fails alone; the others run.
    mixed = python("train.py", "-m", *words, "norm=derf", "model.heads=3,4", cwd=tmp_path)
    assert mixed.returncode == 1 and "model.dim=16 must be a multiple of model.heads=3" in mixed.stderr
    assert [row.split()[0] for row in mixed.stdout.strip().splitlines()[-2:]] == ["failed", "finished"]


def wait_for(path, text, seconds=120):
    """Until a file holds `text`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(text in p.read_text() for p in path):
            return
        time.sleep(0.05)
    raise AssertionError(f"{text!r} never came")


@pytest.mark.parametrize("sweep", [False, True])
def test_a_signal_saves_and_ends_with_75(sweep, tmp_path):
    many = ["-m", "seed=0,1"] if sweep else []
    words = [*many, *TINY_GPT, "trainer.max_steps=100000", "trainer.log_every=1", "trainer.eval_every=100000"]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_for(_Glob(tmp_path, "runs/default/*/metrics.jsonl"), '"step": 20')
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 75
    assert re.search(r"interrupted at step \d+ of 100000; the same command goes on", out)
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "interrupted" and summary["step"] >= 20
    assert rows_of(folder)[-1]["step"] == summary["step"]
    if sweep:
        assert [row.split()[0] for row in out.strip().splitlines()[-2:]] == ["interrupted", "not"]


class _Glob:
    def __init__(self, root, pattern):
        self.root, self.pattern = root, pattern

    def __iter__(self):
        return iter(self.root.glob(self.pattern))


@pytest.mark.slow
def test_torchrun_gives_the_curve_of_one_process(tmp_path):
    """As typed; of every family, in processes that stay: test_distributed.py."""
    words = [*TINY_VIT, *SHORT, "data.batch_size=16", "logger.mode=disabled"]
    _, alone = train(*words)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(ROOT / "train.py")]
    done = python(*torchrun, *words, "out_root=two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "two/default").iterdir()
    assert json.loads((folder / "summary.json").read_text())["processes"] == 2
    for x, y in zip(rows_of(alone), rows_of(folder), strict=True):
        assert x == pytest.approx(y, rel=1e-4, abs=1e-6)


def test_torchrun_and_multirun_do_not_go_together(tmp_path):
    done = python("train.py", "-m", "seed=0,1", cwd=tmp_path, WORLD_SIZE="2", RANK="0")
    assert "torchrun and -m do not go together" in one_line(done)


QUICK = ("demo_gpt", "demo_vit", "paper_gpt2", "paper_imagenet")  # the others measure at the end; slow ones


@pytest.mark.parametrize(
    "experiment", [pytest.param(e, marks=() if e in QUICK else pytest.mark.slow) for e in options("experiment")]
)
def test_every_experiment_takes_two_steps(experiment, tmp_path):

    recipe = yaml.safe_load((ROOT / "configs/experiment" / f"{experiment}.yaml").read_text())
    model = next(d["override /model"] for d in recipe["defaults"] if "override /model" in d)
    small = [w for w in shrunk(model) if not w.startswith("model=")]
    if experiment.startswith("paper_"):  # their data is not embedded
        kinds = {"image": "data=mnist5k", "audio": "data=speech", "episode": "data=cartpole"}
        kinds |= {"genome": "data=made_genome", "sequence": "data=made_genes"}
        small += [kinds.get(load([f"model={model}"])["data"]["task"], "data=stdlib"), "data.batch_size=8"]
        small += ["trainer.strategy=auto", "trainer.checkpointing=none"]  # this is one process
    if "init_from" in recipe:  # whose run is small too
        first = recipe["init_from"].split()[0].removeprefix("model=")
        tiny = [w for w in shrunk(first) if w.startswith("model.")]
        small += [f"init_from='{' '.join([*recipe['init_from'].split()[:2], *tiny, 'trainer.max_steps=1'])}'"]
    summary, _ = train(f"experiment={experiment}", *small, *(["trainer.max_steps=2", "trainer.eval_batches=1"]))
    assert summary["status"] == "finished" and summary["step"] == 2


def test_hydra_help_and_config_print(tmp_path):
    assert "modle: unknown key" in one_line(python("train.py", "--cfg", "job", "modle=x", cwd=tmp_path))
    done = python("train.py", "--cfg", "job", "norm=derf", cwd=tmp_path)
    assert done.returncode == 0 and yaml.safe_load(done.stdout)["norm"]["kind"] == "derf"
