"""The loop: resume is exact, the same seed gives the same curve, and what must not change a curve does not."""

import math
import os
import signal
from hashlib import sha256

import pytest
import torch

from dyt.config.compose import load, options
from dyt.rundir import checkpoint
from dyt.rundir.files import manifests, read_json, weights_sha256, write_json
from dyt.tracking.metrics import Metrics, read_metrics
from dyt.training.optim import learning_rate
from dyt.training.schedule import Schedule
from models.methods import METHODS

from .helpers import (
    TINY_CLASSIFIER,
    TINY_DINO,
    TINY_DIT,
    TINY_DT,
    TINY_GPT,
    TINY_HYENA,
    TINY_MAE,
    TINY_VIT,
    TINY_WAV2VEC2,
    rows_of,
    shrunk,
    train,
)
from .test_models import made

# All that draws at random, on: dropout, drop path, augmentation, mixup, cutmix; and state beside the weights: EMA.
HARD = {
    "gpt": [*TINY_GPT, "model.dropout=0.2", "trainer.accumulate=2", "trainer.ema_decay=0.9", "data.batch_size=8"],
    "vit": [
        *TINY_VIT,
        *("model.dropout=0.1", "model.drop_path=0.2", "data.mixup=0.8", "data.cutmix=1.0", "data.random_erase=0.3"),
        *("data.auto_augment=rand-m9-mstd0.5-inc1", "data.mean=[0.1,0.1,0.1]", "data.std=[0.3,0.3,0.3]"),
        *("trainer.accumulate=2", "trainer.ema_decay=0.9", "trainer.label_smoothing=0.1", "data.batch_size=16"),
        *("norm=batchnorm", "data.workers=2"),
    ],
    "dit": [*TINY_DIT, "norm=dyt", "trainer.accumulate=2", "trainer.ema_decay=0.9", "data.batch_size=16"],
    "mae": [*TINY_MAE, "norm=dyt", "trainer.accumulate=2", "data.batch_size=16"],
    "dt": [*TINY_DT, "norm=dyt", "model.dropout=0.2", "trainer.accumulate=2", "data.batch_size=16"],
    "wav2vec2": [*TINY_WAV2VEC2, "norm=dyt", "trainer.accumulate=2", "model.dropout=0.1", "model.wav2vec2.probe=50"],
    "bases": [*TINY_HYENA, "norm=dyt", "model.bases.objective=masked", "trainer.accumulate=2", "data.batch_size=8"],
    "sequences": [*TINY_CLASSIFIER, "norm=dyt", "data.reverse_complement=0.5", "data.batch_size=8"],
    "dino": [*TINY_DINO, "norm=dyt", "trainer.accumulate=2", "trainer.ema_decay=0.9", "model.drop_path=0.2"],
}
# `make test` has one of text and one of pictures; the others are slow ones.
EACH = [pytest.param(family, marks=() if family in ("gpt", "vit") else pytest.mark.slow) for family in HARD]
SHORT = ["trainer.max_steps=12", "trainer.eval_every=4", "trainer.eval_batches=1", "trainer.log_every=3"]


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    """A real signal to this process while the row of `step` is written."""
    log = Metrics.log

    def then_signal(self, row):
        log(self, row)
        if row["step"] == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Metrics, "log", then_signal)
    return lambda: monkeypatch.setattr(Metrics, "log", log)


def weights(folder):
    return checkpoint.newest(folder / "checkpoints")[0]


def same(a, b):
    """Equal to the bit, through dicts and lists."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("family", EACH)
def test_interrupted_and_resumed_equals_undisturbed_to_the_bit(family, monkeypatch):
    words = [*HARD[family], *SHORT]
    whole, undisturbed = train(*words, out="a")
    back = stop_at(monkeypatch, 6)
    first, folder = train(*words, out="b")
    back()
    assert (first["status"], first["step"]) == ("interrupted", 7)  # the step under way is finished first
    second, again = train(*words, out="b")
    assert again == folder and second["status"] == "finished" == whole["status"]
    assert rows_of(folder) == rows_of(undisturbed)
    assert [row["step"] for row in rows_of(folder)] == [3, 4, 6, 8, 9, 12]
    a, b = weights(undisturbed), weights(folder)
    a.pop("elapsed"), b.pop("elapsed")
    assert same(a, b)
    assert whole["final"] == second["final"] and whole["best"] == second["best"]


@pytest.mark.parametrize("kind", ["muon", "sgd"])  # adamw: above
def test_every_optimizer_resumes_to_the_bit(kind, monkeypatch):
    words = [*TINY_GPT, *SHORT, f"optim.kind={kind}", "optim.decay_gain=true", "norm=dyt"]
    _, undisturbed = train(*words, out="a")
    back = stop_at(monkeypatch, 6)
    first, folder = train(*words, out="b")
    back()
    assert first["status"] == "interrupted"
    train(*words, out="b")
    assert rows_of(folder) == rows_of(undisturbed)
    a, b = weights(undisturbed), weights(folder)
    a.pop("elapsed"), b.pop("elapsed")
    assert same(a, b)
    _, other = train(*TINY_GPT, *SHORT, "norm=dyt", out="c")
    assert rows_of(other) != rows_of(undisturbed)


def test_muon_takes_the_matrices_of_blocks_and_adamw_the_rest():
    from dyt.data import Spec
    from dyt.training.optim import build
    from models import build_model

    config = load([*TINY_GPT, "norm=dyt", "optim.kind=muon"])
    model, _ = build_model(config["model"], config["norm"], Spec("text", "", {}, vocab_size=9))
    both = build(model, config["optim"])
    names = {id(p): n for n, p in model.named_parameters()}
    muon, adamw = ({names[id(p)] for g in part.param_groups for p in g["params"]} for part in both.parts)
    assert muon == {f"blocks.{i}.{m}.weight" for i in (0, 1) for m in ("attn.qkv", "attn.out", "mlp.up", "mlp.down")}
    assert muon | adamw == set(names.values()) and not muon & adamw and "embed.weight" in adamw
    for group in both.param_groups:  # as the loop does at every step
        group["lr"] = 0.5
    assert all(g["lr"] == 0.5 for part in both.parts for g in part.param_groups)
    with pytest.raises(ValueError, match="no matrices in its blocks; choose optim.kind=adamw"):
        build(torch.nn.Linear(3, 3), config["optim"])


@pytest.mark.parametrize("each", [False, True])
def test_gradients_are_clipped_together_or_each_by_its_own_norm(each, monkeypatch):
    """DINO's code does the second: there a large gradient of one tensor makes no other smaller."""
    seen = {}

    def step(self, *_, **__):
        for group in self.param_groups:
            for p in group["params"]:
                seen[id(p)] = p.grad.clone()

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    words = [*TINY_GPT, "norm=layernorm", "trainer.max_steps=1", "trainer.eval_batches=1", "logger.mode=disabled"]
    train(*words, "optim.clip_grad=null", out="a")
    free, clip = [*seen.values()], 0.1
    seen.clear()
    train(*words, f"optim.clip_grad={clip}", f"optim.clip_each={each}", out="b")
    whole = torch.stack([g.norm() for g in free]).norm()
    assert whole > 2 * clip and min(g.norm() for g in free) < clip < max(g.norm() for g in free)
    for before, after in zip(free, seen.values(), strict=True):
        scale = min(1.0, clip / (before.norm() if each else whole).item())
        torch.testing.assert_close(after, before * scale, rtol=1e-4, atol=1e-8)


def test_rows_after_the_last_checkpoint_come_anew_once(monkeypatch):
    words = [*TINY_GPT, *SHORT]
    _, undisturbed = train(*words, out="a")
    with monkeypatch.context() as patch:
        patch.setattr("dyt.training.saving.checkpoint.save", _fail_at(8))
        failed, folder = train(*words, out="b")
    assert failed["status"] == "failed" and "no space" in failed["why"]
    (folder / "metrics.jsonl").open("a").write('{"step": 9, "train/lo')  # and a torn last line
    finished, _ = train(*words, out="b")
    assert finished["status"] == "finished" and rows_of(folder) == rows_of(undisturbed)


def _fail_at(step):
    save = checkpoint.save

    def fails(folder, kind, at, *rest, **more):
        if at >= step:
            raise OSError(28, "no space")
        return save(folder, kind, at, *rest, **more)

    return fails


@pytest.mark.parametrize("family", EACH)
def test_same_seed_same_curve_twice_and_other_seed_another(family):
    words = [*HARD[family], *SHORT]
    _, a = train(*words, out="a")
    _, b = train(*words, out="b")
    _, c = train(*words, "seed=1", out="c")
    assert rows_of(a) == rows_of(b) != rows_of(c)


def test_deterministic_switch(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    _, a = train(*TINY_GPT, *SHORT, "deterministic=true", out="a")
    _, b = train(*TINY_GPT, *SHORT, "deterministic=true", out="b")
    assert rows_of(a) == rows_of(b)
    assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    train(*TINY_GPT, *SHORT, out="c")
    assert not torch.are_deterministic_algorithms_enabled()


def test_pieces_of_a_batch_give_the_curve_of_the_whole():
    _, whole = train(*TINY_GPT, *SHORT, out="a")
    _, pieces = train(*TINY_GPT, *SHORT, "trainer.accumulate=4", out="b")
    for a, b in zip(rows_of(whole), rows_of(pieces), strict=True):
        assert a["step"] == b["step"]
        for key in a.keys() & {"train/loss", "val/loss", "grad_norm"}:
            assert a[key] == pytest.approx(b[key], rel=1e-4)


def test_finished_run_returns_at_once_and_fresh_moves_it_aside(capsys):
    words = [*TINY_GPT, "trainer.max_steps=2"]
    first, folder = train(*words)
    stamp = (folder / "metrics.jsonl").stat().st_mtime_ns
    capsys.readouterr()
    again, _ = train(*words)
    assert capsys.readouterr().out == f"already finished: {folder}\n"
    assert again == first and (folder / "metrics.jsonl").stat().st_mtime_ns == stamp
    train(*words, "resume=fresh")
    aside = folder.with_name(folder.name + ".replaced-1")
    assert read_json(aside / "summary.json") == first and read_json(folder / "summary.json")["status"] == "finished"


def test_a_directory_of_another_config_is_refused_with_the_difference():
    _, folder = train(*TINY_GPT, "trainer.max_steps=2")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("lr: 0.001", "lr: 0.003"))
    with pytest.raises(ValueError, match="made by another config .optim.lr 0.003 there, 0.001 here.*resume=fresh"):
        train(*TINY_GPT, "trainer.max_steps=2")


def test_a_damaged_checkpoint_is_passed_over_and_none_left_is_said(monkeypatch, caplog):
    words = [*TINY_GPT, *SHORT, "trainer.save_every=2"]
    _, undisturbed = train(*words, out="a")
    back = stop_at(monkeypatch, 6)
    _, folder = train(*words, out="b")
    back()
    newest, older = manifests(folder / "checkpoints", "step")
    file = newest.with_suffix(".pt")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    file.write_bytes(content)
    finished, _ = train(*words, out="b")
    assert "its content is not what was saved" in caplog.text
    assert finished["status"] == "finished" and rows_of(folder) == rows_of(undisturbed)

    back = stop_at(monkeypatch, 6)
    _, folder = train(*words, out="c")
    back()
    for manifest in manifests(folder / "checkpoints", "step"):
        manifest.with_suffix(".pt").write_bytes(b"")
    with pytest.raises(ValueError, match="no checkpoint there verifies; type resume=fresh"):
        train(*words, out="c")


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_later_checkpoint_does_not_count_for_those_that_are_kept(keep, tmp_path):
    """The run went on from the one before it: what it saves now is the newest that can be read."""
    for step in (50, 100, 200):
        checkpoint.save(tmp_path, "step", step, {"model": {}, "step": step}, keep=3)
    (tmp_path / "step-000000200.pt").write_bytes(b"")
    assert checkpoint.newest_of(tmp_path).about["step"] == 100
    checkpoint.save(tmp_path, "step", 110, {"model": {}, "step": 110}, keep=keep)
    left = [read_json(m)["step"] for m in manifests(tmp_path, "step")]
    assert left == [110, 100][:keep] and checkpoint.newest_of(tmp_path).about["step"] == 110
    assert len(list(tmp_path.glob("*.pt"))) == keep


def test_a_job_that_slurm_starts_again_is_fresh_once(monkeypatch):
    from dyt.config import compose, identity
    from dyt.resume import finished

    words = [*TINY_GPT, *SHORT, "trainer.save_every=2", "resume=fresh"]
    _, undisturbed = train(*words, out="a")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    back = stop_at(monkeypatch, 6)
    _, folder = train(*words, out="b")
    back()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    summary, _ = train(*words, out="b")
    assert summary["status"] == "finished" and rows_of(folder) == rows_of(undisturbed)
    assert not list(folder.parent.glob("*.replaced-*"))
    plan = identity.plan(compose.load([*words, "out_root=b"]), words)
    assert finished(plan)["status"] == "finished"
    for name, value in (("SLURM_RESTART_COUNT", "0"), ("SLURM_JOB_ID", "8")):  # typed again; another job's
        with monkeypatch.context() as other:
            other.setenv(name, value)
            assert finished(plan) is None
    monkeypatch.delenv("SLURM_JOB_ID")
    train(*words, out="b")
    assert len(list(folder.parent.glob("*.replaced-*"))) == 1


def test_a_checkpoint_holds_no_code():
    """Plain types and tensors: torch's weights_only loader takes it; `newest` uses that loader."""
    _, folder = train(*TINY_GPT, "trainer.max_steps=2", "trainer.ema_decay=0.9")
    state = torch.load(next((folder / "checkpoints").glob("step-*.pt")), weights_only=True)
    assert {"model", "optimizer", "ema", "step", "best"} <= state.keys()


def test_newest_k_and_best_are_kept():
    words = ["trainer.max_steps=12", "trainer.eval_every=2", "trainer.eval_batches=1", "trainer.keep=3"]
    summary, folder = train(*TINY_GPT, *words)
    names = sorted(p.name for p in (folder / "checkpoints").glob("*.pt"))
    best = summary["best"]["val/loss"]["step"]
    assert names == [f"best-{best:09d}.pt", *(f"step-{s:09d}.pt" for s in (8, 10, 12))]


# -- init_from -----------------------------------------------------------------------------------------------------


def test_a_finished_run_is_extended(capsys):
    base = [*TINY_GPT, "trainer.eval_every=4", "trainer.eval_batches=1", "trainer.log_every=1", "optim.min_lr=1e-3"]
    base += ["optim.warmup_steps=0"]  # constant rate: then longer equals continued
    _, short = train(*base, "trainer.max_steps=4", out="a")
    _, whole = train(*base, "trainer.max_steps=8", out="b")
    capsys.readouterr()
    extended, folder = train(*base, "trainer.max_steps=8", f"init_from={short}", out="c")
    assert f"extending {short} from step 4" in capsys.readouterr().out
    assert extended["step"] == 8 and rows_of(folder) == rows_of(whole)
    with pytest.raises(ValueError, match="is at step 4 already; set trainer.max_steps above"):
        train(*base, "trainer.max_steps=3", f"init_from={short}", out="d")


@pytest.mark.parametrize("whole_files", [0, 1, 2])
def test_killed_while_it_takes_the_first_runs_rows_an_extension_is_whole(whole_files, monkeypatch):
    from dyt import resume

    base = [*TINY_GPT, "trainer.eval_every=2", "trainer.eval_batches=1", "trainer.log_every=1", "optim.warmup_steps=0"]
    base += ["optim.min_lr=1e-3"]
    _, short = train(*base, "trainer.max_steps=4", out="a")
    _, whole = train(*base, "trainer.max_steps=6", f"init_from={short}", out="b")
    copy, left = resume.replace_file, whole_files

    def killed(path, write):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        copy(path, write)

    monkeypatch.setattr(resume, "replace_file", killed)
    with pytest.raises(KeyboardInterrupt):
        train(*base, "trainer.max_steps=6", f"init_from={short}", out="c")
    monkeypatch.setattr(resume, "replace_file", copy)
    _, folder = train(*base, "trainer.max_steps=6", f"init_from={short}", out="c")
    assert [row["step"] for row in rows_of(folder)] == [1, 2, 3, 4, 5, 6] and rows_of(folder) == rows_of(whole)
    best = [checkpoint.newest(run / "checkpoints", "best")[1]["step"] for run in (whole, folder)]
    assert best[0] == best[1]


def test_killed_after_a_new_best_it_goes_on_with_the_best_of_its_checkpoint(monkeypatch):
    """The new best comes anew, and was removed; the one before it must still be there until then."""
    from dyt.training.loop import Trainer

    step, end = Trainer.train_step, [6]

    def killed(self, *rest):
        if self.step in end:
            raise KeyboardInterrupt
        return step(self, *rest)

    monkeypatch.setattr(Trainer, "train_step", killed)
    monkeypatch.setattr(Trainer, "evaluate", lambda self, split: {"val/loss": 1 / self.step})
    words = [*TINY_GPT, "trainer.max_steps=9", "trainer.eval_every=1", "trainer.save_every=4"]

    def run() -> tuple[int, int, list[str]]:
        summary, folder = train(*words)
        files = sorted(file.stem for file in folder.glob("checkpoints/*.pt"))
        return summary["step"], summary["best"]["val/loss"]["step"], files

    assert run() == (6, 6, ["best-000000004", "best-000000006", "step-000000004"])
    end[:] = [4]  # before there is a new best
    assert run() == (4, 4, ["best-000000004", "step-000000004"])
    end.clear()
    assert run() == (9, 9, ["best-000000009", "step-000000008", "step-000000009"])


def test_what_fails_at_the_end_is_done_again_without_the_training_before_it(monkeypatch):
    from dyt.tasks.language import Language

    fails = []

    def at_end(self, *_):
        if fails:
            raise RuntimeError("the end failed")
        return {"measured": 7.0}, None

    monkeypatch.setattr(Language, "at_end", at_end)
    words = [*TINY_GPT, *SHORT, "trainer.save_every=100", "trainer.probe_every=5"]
    whole, undisturbed = train(*words, out="a")
    fails.append(True)
    for _ in range(2):
        summary, folder = train(*words, out="b")
        assert (summary["status"], summary["why"]) == ("failed", "RuntimeError: the end failed")
        assert "val/measured" not in rows_of(folder)[-1] and weights(folder)["step"] == 12
    fails.clear()
    with monkeypatch.context() as patch:
        patch.setattr("dyt.training.loop.Trainer.train_step", None)  # it takes none
        again, _ = train(*words, out="b")
    assert rows_of(folder) == rows_of(undisturbed) and rows_of(folder)[-1]["val/measured"] == 7.0
    assert (again["final"], again["best"]) == (whole["final"], whole["best"])
    a, b = weights(undisturbed), weights(folder)
    a.pop("elapsed"), b.pop("elapsed")
    assert same(a, b)


def test_a_run_that_failed_at_its_end_is_extended(monkeypatch):
    from dyt.tasks.language import Language

    base = [*TINY_GPT, "trainer.eval_every=2", "trainer.eval_batches=1", "trainer.log_every=1", "optim.min_lr=1e-3"]
    base += ["optim.warmup_steps=0"]
    whole, undisturbed = train(*base, "trainer.max_steps=8", out="a")
    with monkeypatch.context() as patch:
        patch.setattr(Language, "at_end", None)
        failed, short = train(*base, "trainer.max_steps=4", out="b")
    extended, folder = train(*base, "trainer.max_steps=8", f"init_from={short}", out="c")
    assert (failed["status"], extended["status"]) == ("failed", "finished")
    assert rows_of(folder) == rows_of(undisturbed) and extended["best"] == whole["best"]


def test_an_extended_run_keeps_the_best_of_the_first(monkeypatch):
    """The best came early: its checkpoint must still be there after the extension."""
    import shutil

    from dyt.training.loop import Trainer

    evaluate = Trainer.evaluate
    monkeypatch.setattr(Trainer, "evaluate", lambda self, split: evaluate(self, split) | {"val/loss": float(self.step)})
    base = [*TINY_GPT, "trainer.eval_every=2", "trainer.eval_batches=1"]
    _, short = train(*base, "trainer.max_steps=4", out="a")
    summary, folder = train(*base, "trainer.max_steps=8", f"init_from={short}", out="b")
    assert summary["best"]["val/loss"]["step"] == 2
    assert checkpoint.newest(folder / "checkpoints", "best")[1]["step"] == 2
    # Trained again elsewhere, the source is the same source: no second run of it.
    shutil.rmtree(short)
    train(*base, "trainer.max_steps=4", out="a")
    again, same_folder = train(*base, "trainer.max_steps=8", f"init_from={short}", out="b")
    assert same_folder == folder and again == summary


def test_checkpoints_of_no_known_config_are_told_apart_by_their_content(tmp_path):
    """A folder without run.json: two other weights of one step were one run once. With it, config and step decide."""
    contents = {"a": {"sha256": "1"}, "b": {"sha256": "2"}, "like a": {"sha256": "1"}, "parts": {"files": {"x": "1"}}}
    folders = [tmp_path / name for name in contents]
    for folder, content in zip(folders, contents.values(), strict=True):
        (folder / "checkpoints").mkdir(parents=True)
        write_json(folder / "checkpoints/step-000000100.json", {"file": "step-000000100.pt", "step": 100, **content})
    found = [weights_sha256(str(folder)) for folder in folders]
    assert found[0] == found[2] and len(set(found)) == 3
    for folder in folders:
        write_json(folder / "run.json", {"config_hash": "0123456789"})
    assert {weights_sha256(str(folder)) for folder in folders} == {sha256(b"0123456789@100").hexdigest()}


def test_other_runs_give_weights(tmp_path):
    from safetensors.torch import save_file

    _, source = train(*TINY_GPT, "trainer.max_steps=2", out="a")
    file = tmp_path / "w.safetensors"
    state = {k: v.clone() for k, v in weights(source)["model"].items()}
    save_file(state, file)
    for path in (source, file):
        frozen = ["optim.lr=0", "optim.min_lr=0", "trainer.max_steps=1"]
        _, folder = train(*TINY_GPT, *frozen, f"init_from={path}", out="b")
        assert same(weights(folder)["model"], state)
    with pytest.raises(ValueError, match="weights of another model or norm"):
        train(*TINY_GPT, "norm=layernorm", "trainer.max_steps=1", f"init_from={source}", out="c")
    with pytest.raises(FileNotFoundError, match="neither a run directory with a checkpoint nor a .safetensors file"):
        train(*TINY_GPT, "trainer.max_steps=1", "init_from=nowhere", out="c")
    file.write_bytes(b"garbage")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        train(*TINY_GPT, "trainer.max_steps=1", f"init_from={file}", out="c")


@pytest.mark.parametrize("by", ["directory", "file", "words"])
def test_weights_that_shapes_do_not_tell_apart_are_refused(by, tmp_path):
    """Two weights for one tensor, and matrices cut into other heads; a tied model's own go into an untied one."""
    from safetensors.torch import save_file

    untied, first = [*TINY_GPT, "norm=layernorm", "model.tied=false"], "trainer.max_steps=1"
    source = f"{' '.join(w for w in untied if 'threads' not in w)} {first}"
    if by != "words":
        _, source = train(*untied, first, out="a")
    if by == "file":
        state = weights(source)["model"]
        save_file({k: v.clone() for k, v in state.items()}, source := tmp_path / "w.safetensors")
    words = [*untied[:-1], "trainer.max_steps=2", f"init_from={source}"]
    with pytest.raises(ValueError, match=r"head.weight differ there and are one here; type model.tied=false"):
        train(*words, "model.tied=true", out="b")
    assert train(*words, "model.tied=false", out="b")[0]["status"] == "finished"
    if by != "file":  # which knows no config
        for key, value, has in (("heads", 4, 2), ("kv_heads", 1, 2)):
            if by == "directory" or key == "heads":
                with pytest.raises(ValueError, match=f"model.{key}={value}: the weights of init_from are of {has}, in"):
                    train(*words, "model.tied=false", f"model.{key}={value}", out="b")
    _, tied = train(*untied[:-1], first, out="c")
    assert train(*untied, "trainer.max_steps=2", f"init_from={tied}", out="d")[0]["status"] == "finished"


def test_heads_are_those_that_timm_has_where_a_config_says_nothing():
    from dyt.fit import _heads

    assert [_heads(m, "heads") for m in ({"heads": 2, "timm_name": "x"}, {"dim": 8}, {"heads": None, "dim": 8})] == [
        2,
        None,
        None,
    ]
    assert _heads({"heads": None, "timm_name": "vit_small_patch16_224"}, "heads") == 6
    assert _heads({"heads": None, "timm_name": "test_convnext"}, "heads") is None
    assert _heads({"heads": 8, "kv_heads": None}, "kv_heads") == 8 and _heads({"heads": 8}, "kv_heads") is None


# -- results -------------------------------------------------------------------------------------------------------


def test_divergence_is_a_result(capsys):
    words = [*TINY_GPT, "norm=none", "optim.lr=1e20", "optim.warmup_steps=0", "optim.clip_grad=null"]
    summary, folder = train(*words, "trainer.max_steps=40", "trainer.log_every=1", "trainer.eval_every=1000")
    assert summary["status"] == "diverged" and 0 < summary["step"] < 40 and "in step" in summary["why"]
    assert len(rows_of(folder)) == summary["step"]  # the curve up to there
    again, _ = train(*words, "trainer.max_steps=40", "trainer.log_every=1", "trainer.eval_every=1000")
    assert again == summary and "already diverged" in capsys.readouterr().out


def test_a_validation_loss_that_is_not_finite_is_divergence_too():
    words = [*TINY_GPT, "norm=layernorm", "optim.lr=1e30", "optim.warmup_steps=0", "trainer.max_steps=1"]
    summary, folder = train(*words, "trainer.eval_batches=1")
    assert summary["status"] == "diverged" and "validation loss nan in step 1" in summary["why"]
    assert summary["final"]["val/loss"] is None and "val/loss" not in summary["best"]
    assert "NaN" not in (folder / "summary.json").read_text() + (folder / "metrics.jsonl").read_text()
    assert not list((folder / "checkpoints").glob("best-*"))


def test_a_damaged_directory_says_what_to_type(monkeypatch):
    words = [*TINY_GPT, *SHORT]
    back = stop_at(monkeypatch, 6)
    _, folder = train(*words)
    back()
    text = (folder / "config.yaml").read_text()
    for broken in ("model: [", ""):
        (folder / "config.yaml").write_text(broken)
        with pytest.raises(ValueError, match="its config.yaml is damaged; type resume=fresh"):
            train(*words)
    (folder / "config.yaml").write_text(text)
    (folder / "metrics.jsonl").open("ab").write(b"\xff\xfe\n")
    assert train(*words)[0]["status"] == "finished"


def test_a_diverging_step_leaves_the_weights_alone(monkeypatch):
    from dyt.tasks.language import Language

    loss = Language.loss
    seen = []

    def nan_on_third(self, model, inputs, targets):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return loss(self, model, inputs, targets) * (math.nan if len(seen) == 3 else 1.0)

    monkeypatch.setattr(Language, "loss", nan_on_third)
    words = ["trainer.max_steps=9", "trainer.save_every=2", "trainer.eval_every=100"]
    summary, folder = train(*TINY_GPT, *words)
    assert summary["status"] == "diverged" and summary["step"] == 2
    assert same(weights(folder)["model"], seen[2])


def test_summary_and_metrics_hold_what_scripts_rely_on():
    summary, folder = train(*TINY_GPT, *SHORT)
    rows = read_metrics(folder / "metrics.jsonl")
    assert {"step", "train/loss", "val/loss", "val/top1", "lr", "tokens_per_s"} <= rows[-1].keys()
    assert summary["status"] == "finished" and summary["tokens"] == 12 * 12 * 16
    assert summary["final"]["val/loss"] == rows[-1]["val/loss"]
    best = min((r["val/loss"], r["step"]) for r in rows if "val/loss" in r)
    assert summary["best"]["val/loss"] == {"value": best[0], "step": best[1]}
    assert {"git_commit", "git_dirty", "versions", "hardware"} <= summary["provenance"].keys()
    assert folder.name.endswith(summary["config_hash"]) and len(summary["data_sha256"]) == 64
    vit, folder = train(*TINY_VIT, *SHORT)
    assert {"val/top1", "val/top5", "images_per_s"} <= read_metrics(folder / "metrics.jsonl")[-1].keys()
    assert vit["images"] == 12 * 128


def test_validation_is_weighted_exactly():
    """The mean over all tokens, though batches and the last window differ in size."""
    from dyt.run import assemble
    from dyt.training.distributed import join
    from dyt.training.evaluation import evaluate

    config = load([*TINY_GPT, "data.eval_batch_size=7777"])
    world = join("cpu")
    data, model, _, task = assemble(config, world, 0)
    data.tokens["val"] = data.tokens["val"][:1000]
    got = evaluate(model, task, data, "val", world, torch.autocast("cpu", enabled=False))
    tokens = torch.tensor(data.tokens["val"][:].astype("int64"))
    losses = []
    for start in range(0, 999, 16):
        x, y = tokens[start : min(start + 16, 999)][None], tokens[start + 1 : min(start + 17, 1000)][None]
        logits = model(x).double()
        losses.append(torch.nn.functional.cross_entropy(logits[0], y[0], reduction="none").detach())
    assert got["val/loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-6)
    assert len(torch.cat(losses)) == 999


def test_batch_larger_than_the_set_and_odd_mixup_are_refused():
    with pytest.raises(ValueError, match=r"data.batch_size=9999 is larger than the training set \(4000\)"):
        train(*TINY_VIT, "data.batch_size=9999")
    for words in (["data.batch_size=15"], ["data.batch_size=6", "trainer.accumulate=2"], ["trainer.micro_batch=1"]):
        with pytest.raises(ValueError, match="mixup and cutmix need an even one; change data.batch_size, trainer.acc"):
            train(*TINY_VIT, "data.mixup=0.8", *words)
    assert not os.path.exists("runs")


def test_mixup_and_cutmix_are_the_same_in_pieces():
    words = [*TINY_VIT, "data.mixup=0.8", "data.cutmix=1.0", "data.batch_size=8", "trainer.precision=double"]
    words += ["trainer.max_steps=4", "trainer.log_every=1", "trainer.eval_batches=1", "data.eval_batch_size=8"]
    whole, split = (
        [row["train/loss"] for row in rows_of(train(*words, f"trainer.micro_batch={count}", out=str(count))[1])]
        for count in (8, 3)  # which makes pieces of 2
    )
    assert len(set(whole)) == 4 and split == pytest.approx(whole, rel=1e-9)


def test_a_step_that_is_whole_mixes_as_it_always_did():
    """As timm mixes a batch, from the numbers that are seeded for the step."""
    from timm.data import Mixup

    from dyt.data.order import seed_all
    from dyt.tasks import Place
    from dyt.tasks.classification import Classification

    seen = []
    pictures, labels = torch.rand(6, 1, 8, 8), torch.arange(6)
    task = Classification({"mixup": 0.8, "cutmix": 1.0}, 6, 0.1)
    timms = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=6)
    for step in range(4):
        batch = task.prepare(pictures.clone(), labels, Place(("train", 3, step), 0))
        task.loss(lambda x: (seen.append(x), torch.zeros(6, 6))[1], *batch)
        seed_all(3, "step", step, 0, 0)
        mixed, _ = timms(pictures.clone(), labels)
        assert torch.equal(seen[-1], mixed) and not torch.equal(mixed, pictures)


def test_schedules():
    rate = [learning_rate(s, 10, lr=1.0, min_lr=0.1, warmup_steps=3) for s in range(10)]
    assert rate[:4] == [0.25, 0.5, 0.75, 1.0] and rate == sorted(rate[:4]) + sorted(rate[4:], reverse=True)
    assert rate[-1] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 6 / 7)))
    trainer = load(["trainer.max_epochs=2.5"])["trainer"]
    assert Schedule.of(trainer, 31) == Schedule(78, 10, 31, 31)  # epochs and nulls become steps once
    assert Schedule.of({**trainer, "max_steps": 5}, 31).total == 5


@pytest.mark.slow
def test_bf16_and_compile_switches():
    full, _ = train(*TINY_GPT, *SHORT, out="a")
    half, _ = train(*TINY_GPT, *SHORT, "trainer.precision=bf16", out="b")
    assert half["final"]["val/loss"] == pytest.approx(full["final"]["val/loss"], rel=0.02)
    assert half["final"]["train/loss"] != full["final"]["train/loss"]
    fast, folder = train(*TINY_GPT, *SHORT, "trainer.compile=true", out="c")
    assert fast["final"]["val/loss"] == pytest.approx(full["final"]["val/loss"], rel=1e-4)
    assert not any("_orig_mod" in key for key in weights(folder)["model"])


def test_the_moving_average_is_the_formulas_for_tied_weights_too():
    from dyt.training.average import Average

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = torch.nn.Embedding(3, 2), torch.nn.Linear(2, 3, bias=False)
            self.norm = torch.nn.BatchNorm1d(2)
            self.head.weight = self.embed.weight

    model = Tied()
    average = Average(model, decay=0.9)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in (*model.parameters(), model.norm.running_mean):
            value += 1
    model.norm.num_batches_tracked += 4
    for _ in range(5):
        average.update(model)
    found = average.module.state_dict()
    for name in ("embed.weight", "head.weight", "norm.weight"):
        torch.testing.assert_close(found[name], first[name] + 1 - 0.9**5)
    assert found["norm.num_batches_tracked"] == 4 and torch.equal(found["norm.running_mean"], torch.ones(2))


STILL = [["model=gpt_nano", f"norm={norm}"] for norm in options("norm")]
STILL += [["model=vit_nano", "norm=none", f"model.method={method}"] for method in METHODS]


@pytest.mark.parametrize("words", STILL, ids=lambda words: words[-1])
def test_the_average_of_weights_that_stay_is_the_model_whatever_its_norms(words):
    """Batches move statistics and power iterations; at lr=0 they move no weight."""
    from dyt.training.average import Average

    model, _ = made(*shrunk(words[0].partition("=")[2]), *words[1:])
    average, text = Average(model, decay=0.9), words[0] == "model=gpt_nano"
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        x = torch.randint(50, (2, 16), generator=g) if text else torch.randn(2, 3, 28, 28, generator=g)
        model.train()(x)
        average.update(model)
    assert torch.equal(average.module(x), model.eval()(x))


def test_beside_averaged_weights_the_vectors_of_a_spectral_norm_are_of_length_1():
    words = [*TINY_VIT, "norm=none", "model.method=sigma_reparam", "trainer.max_steps=8", "trainer.eval_batches=1"]
    _, folder = train(*words, "trainer.ema_decay=0.9", "optim.lr=1e-2", "optim.warmup_steps=0")
    weights = checkpoint.read_weights(str(folder))
    lengths = [value.norm().item() for name, value in weights.items() if name.endswith(("._u", "._v"))]
    assert len(lengths) == 2 * (2 * 4 + 1) and lengths == pytest.approx([1.0] * len(lengths), abs=1e-5)
