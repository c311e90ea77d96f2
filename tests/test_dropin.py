"""A run that starts from another one, named by its words, with its norms converted."""

import pytest
import torch

from dyt.config import compose, identity
from dyt.rundir import checkpoint
from dyt.studies.running.pool import outcome_of

from .helpers import TINY_GPT, TINY_MAE, TINY_VIT, pictures_at, rows_of, train
from .test_trainer import stop_at

SHORT = ["trainer.max_steps=2", "trainer.eval_batches=1", "data.eval_batch_size=8", "logger.mode=disabled"]
BASE = "init_from=norm=layernorm trainer.max_steps=8 trainer.eval_batches=1 optim.lr=1e-2 optim.warmup_steps=0"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_run_of_the_words_is_trained_once_and_its_weights_are_taken():
    kept, folder = train(*TINY_GPT, *SHORT, BASE, "norm=layernorm", "optim.lr=0", "optim.min_lr=0")
    bases = [p for p in folder.parent.iterdir() if p.is_dir() and "max_steps-8" in p.name]
    assert kept["status"] == "finished" and len(bases) == 1
    theirs, ours = (checkpoint.read_weights(str(f)) for f in (bases[0], folder))
    assert all(torch.equal(theirs[k], ours[k]) for k in theirs)
    written = (bases[0] / "summary.json").stat().st_mtime_ns
    train(*TINY_GPT, *SHORT, BASE, "norm=dyt", "convert=naive")
    assert (bases[0] / "summary.json").stat().st_mtime_ns == written


def test_conversions_keep_all_else_and_say_what_they_cost():
    before = {}
    for how in ("naive", "reset", "calibrated"):
        _, folder = train(*TINY_GPT, *SHORT, BASE, "norm=dyt", f"convert={how}", "optim.lr=0", "optim.min_lr=0")
        first, *_, last = rows_of(folder)
        assert first["step"] == 0 and first["val/loss"] == pytest.approx(last["val/loss"], abs=1e-6)
        before[how] = first["val/loss"] - first["before/loss"]
        base = next(p for p in folder.parent.iterdir() if p.is_dir() and "max_steps-8" in p.name)
        theirs, ours = (checkpoint.read_weights(str(f)) for f in (base, folder))
        assert all(torch.equal(theirs[k], ours[k]) for k in theirs if "norm" not in k)
        if how == "naive":
            assert torch.equal(theirs["final_norm.weight"], ours["final_norm.weight"])
        if how == "reset":  # gamma and alpha are at their start, and not what the old norm had learned
            gains = {key: value for key, value in ours.items() if key.endswith("norm.weight")}
            assert len(gains) == 5 and all(torch.equal(g, torch.ones(16)) for g in gains.values())
            assert all(ours[key].item() == 0.5 for key in ours if key.endswith("alpha"))
            assert all((theirs[key] - 1).abs().max() > 0.01 for key in gains)
    assert abs(before["calibrated"]) < 0.5 * min(abs(before["naive"]), abs(before["reset"]))


def test_a_run_in_double_precision_converts_as_one_in_single():
    words = [*TINY_GPT, *SHORT, BASE, "norm=dyt", "convert=calibrated", "optim.lr=0", "optim.min_lr=0"]
    single, double = (
        rows_of(train(*words, f"trainer.precision={precision}", out=precision)[1]) for precision in ("fp32", "double")
    )
    for key in ("val/loss", "before/loss"):
        assert double[0][key] == pytest.approx(single[0][key], rel=1e-4)


def test_site_by_site_keeps_what_is_converted_already():
    """The final norm first, then all: a run that starts from one that starts from one."""
    still = ["optim.lr=0", "optim.min_lr=0"]
    words = "norm=dyt norm.sites.attn.kind=layernorm norm.sites.mlp.kind=layernorm convert=calibrated"
    words = f"{words} {' '.join(SHORT[:2])} {' '.join(still)} {BASE.replace('=', chr(61) + chr(39), 1)}'"
    _, folder = train(*TINY_GPT, *SHORT, f'init_from="{words}"', "norm=dyt", "convert=calibrated", *still)
    steps = sorted(folder.parent.iterdir(), key=lambda p: p.stat().st_mtime)
    half = next(p for p in steps if p.is_dir() and p != folder and "kind" in p.name)
    theirs, ours = (checkpoint.read_weights(str(f)) for f in (half, folder))
    alphas = {key for key in ours if key.endswith("alpha")}
    assert {key for key in theirs if key.endswith("alpha")} == {"final_norm.alpha"} < alphas
    assert all(torch.equal(theirs[k], ours[k]) for k in theirs if "norm" not in k or k.startswith("final"))
    gap = rows_of(folder)[0]
    assert gap["before/loss"] == pytest.approx(rows_of(half)[0]["val/loss"], abs=1e-6)


def test_old_hashes_stay_and_the_words_count():
    def hash(*words: str) -> str:
        words = [*TINY_GPT, *words]
        return identity.plan(compose.load(words), words).hash

    config = compose.load(TINY_GPT)
    flat = identity.counted(config, "x")
    assert "convert" not in flat and "init_sha256" not in flat
    one = hash("init_from=norm=layernorm trainer.max_steps=8", "convert=naive")
    assert one == hash("init_from=trainer.max_steps=8 norm=layernorm", "convert=naive")
    assert one != hash("init_from=norm=layernorm trainer.max_steps=9", "convert=naive")
    assert one != hash("init_from=norm=layernorm trainer.max_steps=8", "convert=reset")
    assert one != hash("init_from=norm=layernorm trainer.max_steps=8", "convert=naive", "seed=1")


def test_words_that_name_this_data_again_mean_it_where_it_is():
    """Its file, its repository, its parts; what the words set of these they keep, and other data have their own."""
    images = ["model=vit_nano", "data.path=mine.csv.gz", "data.workers=0", "convert=naive"]
    shards = ["model=gpt_nano", "data=shards", "data.path=here", "data.mix={a: 0.7, b: 0.3}"]
    hub = ["model=gpt_nano", "data=hf_text", "data.hub=me/mine", "data.hub_config=small", "data.revision=abc"]
    for words in (images, shards, hub):
        config = compose.load([w for w in words if "convert" not in w])
        name, found = config["data"]["name"], {}
        for first in ("", f"data={name} "):
            found[first] = base_of(*words, f"init_from={first}norm=layernorm")["data"]
        assert found[""] == found[f"data={name} "] == config["data"]
    own = base_of(*images, "init_from=data=mnist5k data.path=yours.csv.gz norm=layernorm")["data"]
    assert (own["path"], own["workers"]) == ("yours.csv.gz", 0)
    assert base_of(*images[:-1], "init_from=data=cifar10 model=vit_nano norm=layernorm")["data"]["path"] is None


def base_of(*words: str) -> dict:
    return identity.base_config(compose.load([*words, "norm=dyt"]))[0]


@pytest.mark.parametrize(
    "words, said",
    [
        (["convert=naive"], "convert=naive: needs the run whose norms are converted, by its words"),
        (["convert=nave", BASE], "convert=nave: did you mean 'naive'. choose from naive, reset, calibrated"),
        (["init_from=norm=layernrm"], "norm"),
        (
            ["init_from=norm=layernorm model.dim=32"],
            "init_from: model.dim=32: the run that it names has model.dim=16, as this one; leave it out, or type "
            "model=gpt_nano there before it",
        ),
        (
            ["init_from=norm=layernorm trainer.precision=bf16"],
            'init_from: trainer.precision=bf16: the run that it names has trainer.precision="fp32", as this one',
        ),
        (
            ["init_from=norm=layernorm seed=3"],
            "init_from: seed=3: the run that it names has seed=0, as this one; leave",
        ),
    ],
)
def test_what_cannot_be_converted_is_one_line(words, said):
    with pytest.raises(ValueError, match=said):
        train(*TINY_GPT, *SHORT, *words)


TO_RMS = "convert=calibrated makes DyT or Derf, and the run of init_from has layernorm"
KEPT = "init_from=norm=rmsnorm norm.eps=1e-4"


@pytest.mark.parametrize(
    "words, said",
    [
        ([BASE, "norm=rmsnorm"], f"norm=rmsnorm: {TO_RMS}; type norm=dyt or norm=derf, and norm.sites.<site>.kind="),
        ([BASE, "norm=none"], f"norm=none: {TO_RMS}"),
        ([BASE, "norm=gatednorm", "norm.inner=dyt"], f"norm=gatednorm: {TO_RMS}"),
        ([BASE.replace("layernorm", "rmsnorm"), "norm=l1norm"], "norm=l1norm: convert=calibrated makes DyT or Derf"),
        (
            [BASE, "norm=dyt", "norm.sites.final.kind=rmsnorm"],
            f"norm.sites.final.kind=rmsnorm: {TO_RMS} at final; type norm.sites.final.kind=layernorm or "
            "norm.sites.final.kind=dyt",
        ),
        (
            [BASE.replace("=", "=norm.sites.mlp.kind=dyt ", 1), "norm=layernorm", "norm.sites.attn.kind=dyt"],
            "norm=layernorm: convert=calibrated makes DyT or Derf, and the run of init_from has dyt at mlp; type "
            "norm.sites.mlp.kind=dyt",
        ),
        (
            [KEPT, "norm=dyt", "norm.sites.attn.kind=rmsnorm"],
            "norm.sites.attn.eps=null: convert=calibrated leaves rmsnorm as it was, and the run of init_from has "
            "0.0001 at attn; type +norm.sites.attn.eps=0.0001",
        ),
        (
            [BASE, "norm=layernorm", "norm.sites.attn.eps=1e-3", "norm.sites.mlp.kind=dyt"],
            "norm.sites.attn.eps=0.001: convert=calibrated leaves layernorm as it was, and the run of init_from has",
        ),
        (
            ["init_from=norm=gatednorm", "norm=gatednorm", "norm.inner=dyt", "norm.sites.attn.kind=derf"],
            "norm.inner=dyt: convert=calibrated leaves gatednorm as it was, and the run of init_from has rmsnorm; type "
            "norm.inner=rmsnorm",
        ),
        (
            [f"init_from={' '.join(TINY_GPT[:-1])} model.dim=32 norm=layernorm", "norm=dyt"],
            "model.dim=16: convert=calibrated needs a run of the same model, and init_from's has 32; type model.dim=32",
        ),
        (
            ["init_from=model=vit_nano data=mnist5k norm=layernorm", "norm=dyt"],
            "model=gpt_nano: convert=calibrated needs a run of the same model, and init_from names model=vit_nano",
        ),
    ],
)
def test_what_cannot_be_made_is_one_line_before_the_first_run_is_trained(words, said, tmp_path):
    with pytest.raises(ValueError) as refused:
        train(*TINY_GPT, *SHORT, "convert=calibrated", *words)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_where_every_norm_stays_there_is_nothing_to_convert():
    base = BASE.replace("max_steps=8", "max_steps=1")
    with pytest.raises(ValueError, match="convert=reset: every norm is as in the run of init_from; leave convert out"):
        train(*TINY_GPT, *SHORT, base, "norm=layernorm", "convert=reset")


GPT, VIT, TEXT = " ".join(TINY_GPT[:-1]), " ".join(TINY_VIT[:-1]), "data=hf_text data.path=a.txt data.tokenizer"
MAE = " ".join([*TINY_MAE[:4], *TINY_MAE[5:]])
WIDE = MAE.replace("dim=16", "dim=32", 1)
SETS = "data=imagefolder data.img_size=16 data.patch_size=8"


@pytest.mark.parametrize(
    "words, said",
    [
        (
            [*TINY_VIT, f"init_from={WIDE} norm=dyt"],
            "init_from=model=mae_nano .*cls_token .1, 1, 32. there, .1, 1, 16. h",
        ),
        ([*TINY_VIT, f"init_from={MAE} norm=layernorm"], "weights of another model or norm .*alpha missing"),
        (
            [*TINY_GPT, f"init_from={GPT} model.tied=false"],
            "head.weight differ there and are one here; type model.tied",
        ),
        (
            [*TINY_GPT, f"init_from={GPT} model.heads=4"],
            "model.heads=2: the weights of init_from are of 4, in matrices",
        ),
        ([*TINY_GPT, *f"{TEXT}=byte".split(), f"init_from={GPT} {TEXT}=char"], "its weights know char tokens, and"),
        (
            [*TINY_GPT, *f"{TEXT}=char".split(), f"init_from={GPT} {TEXT}=char data.path=b.txt"],
            "outside the vocabulary",
        ),
        (
            [*TINY_VIT, *SETS.split(), "data.path=a", f"init_from={VIT} {SETS} data.path=b"],
            "class oak is unknown to the",
        ),
        (
            [*TINY_GPT, "convert=naive", "norm=layernorm", "init_from=norm=layernorm"],
            "every norm is as in the run of in",
        ),
        (
            [*TINY_GPT, "init_from=norm=dyt init_from='norm=layernorm trainer.max_steps=1'"],
            "weights of another model or norm",
        ),
    ],
)
def test_weights_that_will_not_fit_are_refused_before_they_are_trained(words, said, tmp_path):
    (tmp_path / "a.txt").write_text("abcdefgh " * 60)
    (tmp_path / "b.txt").write_text("bcdefgh " * 60)
    for root, name in (("a", "oak"), ("b", "elm")):
        pictures_at(tmp_path / root, "ash", name)
    with pytest.raises(ValueError, match=said) as refused:
        train("norm=dyt", *words, *SHORT)
    assert "\n" not in str(refused.value) and not list(tmp_path.rglob("runs/*/*/checkpoints/*.pt"))


def test_one_alpha_a_layer_becomes_one_a_channel():
    base = "init_from=norm=dyt trainer.max_steps=2 trainer.eval_batches=1"
    words = ["norm=dyt", "norm.alpha_shape=channel", "convert=calibrated", "optim.lr=0", "optim.min_lr=0"]
    first, *_ = rows_of(train(*TINY_GPT, *SHORT, base, *words)[1])
    assert first["val/loss"] == pytest.approx(first["before/loss"], abs=1e-3)


def test_a_run_waits_for_the_one_it_starts_from(monkeypatch, capsys):
    from dyt import run
    from dyt.rundir.lock import Held

    answers = iter([Held("runs/base: being written by pid 7"), Held("runs/base"), {"status": "finished"}])

    def execute(base):
        if isinstance(answer := next(answers), Held):
            raise answer
        return answer

    slept = []
    monkeypatch.setattr(run, "execute", execute)
    monkeypatch.setattr(run.time, "sleep", slept.append)
    base = identity.plan(compose.load([*TINY_GPT, *SHORT, "norm=layernorm"]))
    assert run.first(base) == {"status": "finished"} and slept == [1, 1]
    assert capsys.readouterr().out.count("waiting for the run to start from: runs/base: being written by pid 7") == 1


def test_a_stop_while_the_first_run_trains_stops_both_and_a_second_call_goes_on(monkeypatch):
    """It was a failure once: exit code 1, no place in SLURM's queue, and a sweep that went on."""
    words = [*TINY_GPT, *SHORT, f"{BASE} trainer.log_every=1", "norm=layernorm"]
    config = compose.load(words)
    back = stop_at(monkeypatch, 2)
    assert outcome_of(config, words)["status"] == "interrupted"
    back()
    with monkeypatch.context() as patch:
        patch.setattr("dyt.run.first", lambda base: {"status": "interrupted"})
        with pytest.raises(KeyboardInterrupt):  # train.py ends with 75 then
            train(*words)
    assert outcome_of(config, words)["status"] == "finished"
