"""Exported folders: what others load gives the outputs of the model that was trained, by the lines of its own card."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dyt.config.compose import load
from dyt.data import Spec
from dyt.rundir.files import read_json, write_json
from dyt.sharing import formats
from dyt.sharing.card import seeds_beside
from models import build_model
from scripts import export

from .helpers import ROOT, TINY_GPT, TINY_VIT, one_line, python, shrunk, train

SHORT = ["trainer.max_steps=3", "trainer.eval_batches=1", "data.batch_size=8", "optim.lr=0.05", "optim.warmup_steps=0"]
LLAMA = [*shrunk("llama_nano"), "trainer.threads=1"]
TOKENS = torch.arange(24).reshape(2, 12) % 20


def loaded_by_its_card(folder: Path) -> str:
    """The Python of the card, at most three lines."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    assert len([line for line in code.splitlines() if line and not line.startswith("sys.path")]) <= 3
    return code


def model_of(folder: Path) -> torch.nn.Module:
    before = sys.path[:]
    try:
        names: dict = {}
        exec(loaded_by_its_card(folder), names)  # noqa: S102
    finally:
        sys.path[:] = before
        sys.modules.pop("norm_dyt", None)
    return names["model"].eval()


def run_of(*words: str) -> Path:
    summary, folder = train(*words, *SHORT)
    assert summary["status"] == "finished"
    return folder


def both(run: Path, to: str, out: Path):
    """The trained model, and what others load."""
    export.main([f"run={run}", "ckpt=last", f"out={out / 'pt'}"])
    export.main([f"run={run}", "ckpt=last", "--format", to, f"out={out / to}"])
    return model_of(out / "pt"), model_of(out / to)


VITS = ["layernorm", "dyt", "derf", "rmsnorm", "none"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [[f"norm={n}"] for n in VITS] + [["norm=dyt", "norm.alpha=log", "norm.squash=isru"]])
def test_a_vit_loads_into_timm(words, tmp_path):
    pytest.importorskip("timm")
    ours, theirs = both(run_of(*TINY_VIT, *words), "timm", tmp_path)
    images = torch.randn(3, *ours.patch_embed.proj.weight.shape[1:2], *ours.patch_embed.img_size)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours(images), rtol=1e-5, atol=1e-5)
    if words == ["norm=layernorm"]:
        assert not (tmp_path / "timm" / "norm_dyt.py").exists()
        from PIL import Image
        from timm.data import create_transform, resolve_data_config

        from dyt.data.images import build_transform

        picture = Image.fromarray(torch.randint(256, (40, 40), dtype=torch.uint8).numpy())
        prepared = create_transform(**resolve_data_config(model=theirs))(picture)  # as timm's own scripts do
        assert torch.equal(prepared, build_transform(load([*TINY_VIT, *words])["data"], train=False)(picture))


GPTS = [
    (TINY_GPT, ["norm=layernorm"], "gpt2"),
    (TINY_GPT, ["norm=layernorm", "norm.bias=false", "model.bias=true", "model.tied=false"], "gpt2"),
    (TINY_GPT, ["norm=dyt"], "dyt_gpt2"),
    (TINY_GPT, ["norm=derf", "model.embed_scale=learnable", "norm.alpha=ratio"], "dyt_gpt2"),
    (TINY_GPT, ["norm=dyt", "norm.alpha_shape=channel", "norm.bias=false"], "dyt_gpt2"),
    (LLAMA, ["norm=rmsnorm", "model.kv_heads=1"], "llama"),
    (LLAMA, ["norm=dyt", "model.embed_scale=learnable", "model.bias=true"], "dyt_llama"),
    (LLAMA, ["norm=layernorm", "model.tied=true"], "dyt_llama"),
    (LLAMA, ["norm=none"], "dyt_llama"),
]


@pytest.mark.slow
@pytest.mark.parametrize("family, words, kind", GPTS, ids=lambda v: " ".join(v) if isinstance(v, list) else v)
def test_a_gpt_loads_into_transformers(family, words, kind, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    ours, theirs = both(run_of(*family, *words), "hf", tmp_path)
    assert theirs.config.model_type == kind
    with torch.no_grad():
        got = theirs(TOKENS).logits
        torch.testing.assert_close(got, ours(TOKENS), rtol=1e-5, atol=1e-5)
    assert (tmp_path / "hf/modeling_dyt.py").exists() == kind.startswith("dyt")
    body = transformers.AutoModel.from_pretrained(tmp_path / "hf", trust_remote_code=True)  # without the head
    hidden = body.eval()(TOKENS).last_hidden_state
    torch.testing.assert_close(hidden @ ours.head.weight.T, got, rtol=1e-4, atol=1e-4)
    written = theirs.generate(TOKENS[:1, :4], max_new_tokens=5, do_sample=False)
    assert written.tolist() == ours.generate(TOKENS[:1, :4], 5, temperature=0).tolist()


def summarised(folder: Path, config: dict, final: float, **more) -> Path:
    """A run directory with what a card reads of it."""
    folder.mkdir(parents=True)
    summary = {"status": "finished", "seed": config["seed"], "data_sha256": "a", "final": {"val/loss": final}, **more}
    write_json(folder / "summary.json", summary)
    write_json(folder / "run.json", {"init_sha256": summary.pop("init_sha256", None)})
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_a_card_has_the_finished_seeds_of_its_own_recipe_and_data_and_no_other(tmp_path):
    def of(*words):
        return load([*TINY_GPT, "norm=dyt", *words])

    run = summarised(tmp_path / "m-s0-a", of(), 1.0)
    summarised(tmp_path / "m-s1-b", of("seed=1", "trainer.save_every=7", "out_root=elsewhere"), 1.1)
    summarised(tmp_path / "a copy", of(), 9.0)
    summarised(tmp_path / "m-s2-c", of("seed=2"), 9.0, data_sha256="b")
    summarised(tmp_path / "m-s3-d", of("seed=3", "optim.lr=1"), 9.0)
    summarised(tmp_path / "m-s4-e.replaced-1", of("seed=4"), 9.0)
    summarised(tmp_path / "damaged", of("seed=6"), 9.0).joinpath("config.yaml").write_text("- 1")
    stopped = summarised(tmp_path / "m-s5-f", of("seed=5"), 9.0, status="interrupted")
    weights = [summarised(tmp_path / f"from{i}", of(f"seed={i}"), i / 10, init_sha256=f"{i}" * 64) for i in (6, 7)]
    named = [of(f"seed={i}", "init_from=norm=layernorm") for i in (8, 9)]
    named = [summarised(tmp_path / f"named{i}", of, 2.0, init_sha256=f"run {i}") for i, of in enumerate(named)]

    def seeds(of: Path):
        found = seeds_beside(of, yaml.safe_load((of / "config.yaml").read_text()))
        return {summary["seed"]: summary["final"]["val/loss"] for summary in found}

    assert seeds(run) == {0: 1.0, 1: 1.1}
    assert seeds(stopped) == {5: 9.0}
    assert seeds(weights[0]) == {6: 0.6}
    assert seeds(named[0]) == {8: 2.0, 9: 2.0} == seeds(named[1])


WITHOUT = """
import sys
sys.modules["dyt"] = sys.modules["models"] = None
import torch
{code}
torch.save(model(torch.load("tokens.pt")).logits, "logits.pt")
"""


@pytest.mark.slow
def test_transformers_loads_it_offline_where_this_package_is_not(tmp_path):
    pytest.importorskip("transformers")
    ours, _ = both(run_of(*TINY_GPT, "norm=dyt"), "hf", tmp_path)
    torch.save(TOKENS, tmp_path / "tokens.pt")
    words = [sys.executable, "-c", WITHOUT.format(code=loaded_by_its_card(tmp_path / "hf"))]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), ours(TOKENS), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, to, says",
    [
        ([*TINY_GPT], "timm", "format=timm: model=gpt_nano is not a ViT; type format=pt"),
        ([*TINY_VIT], "hf", "format=hf: model=vit_nano is no GPT; type format=timm for a ViT, else format=pt"),
        ([*TINY_GPT, "model.positions=rope"], "hf", "model.positions=rope with model.mlp=gelu is neither GPT-2's"),
        ([*LLAMA, "model.qk_norm=true"], "hf", "model.qk_norm=true: GPT-2 and LLaMA have no norm of queries"),
        ([*TINY_GPT, "model.kv_heads=1"], "hf", "model.kv_heads=1: GPT-2 has none of its own"),
        ([*TINY_GPT, "norm=none", "model.method=skipinit"], "hf", "model.method=skipinit changes the blocks"),
        ([*TINY_VIT, "norm=batchnorm"], "timm", "a norm of class _OverTokens has no place there; type format=pt"),
        ([*TINY_GPT, "norm=dyt", "norm.sites.mlp.bias=false"], "hf", "norm.sites.mlp differs from attn in bias"),
        ([*shrunk("convnext_base"), "data=mnist5k"], "timm", "model=convnext_base is not a ViT"),
    ],
)
def test_what_cannot_be_expressed_there_is_one_line_and_writes_nothing(words, to, says, tmp_path):
    run = run_of(*words)
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        export.main([f"run={run}", "ckpt=last", f"format={to}", f"out={tmp_path / 'out'}"])
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_card_has_all_seeds_of_the_recipe_and_nothing_invented(tmp_path):
    runs = {seed: train(*TINY_GPT, "norm=dyt", *SHORT, f"seed={seed}") for seed in (1, 2)}
    train(*TINY_GPT, "norm=dyt", *SHORT, "seed=3", "optim.lr=0.01")  # another recipe
    export.main([f"run={runs[1][1]}", "ckpt=last", f"out={tmp_path / 'out'}"])
    card = (tmp_path / "out/README.md").read_text()
    rows = re.findall(r"^\| (\d) \| (.*) \|$", card, re.M)
    assert [row[0] for row in rows] == ["1", "2"]
    for seed, cells in rows:
        assert f"{runs[int(seed)][0]['final']['val/loss']:.4f}" in cells
    for heading in ("Load", "Metrics", "Not supported", "Data and provenance", "Recipe"):
        assert f"## {heading}" in card
    assert runs[1][0]["config_hash"] in card and "Contexts beyond 16 tokens." in card


@pytest.mark.parametrize(
    "words, ways", [([], None), (["norm.alpha=log"], "log"), (["norm.sites.mlp.alpha=ratio"], "ratio")]
)
def test_a_card_says_where_alpha_is_learned_in_another_way(words, ways):
    config = load([*TINY_GPT, "norm=dyt", *words])
    model, _ = build_model(config["model"], config["norm"], Spec("text", "", {}, vocab_size=50))
    said = [line for line in formats.limits("hf", config, model) if "alpha" in line]
    assert said == ([f"norm.alpha={ways} in further training: alpha is a plain parameter here."] if ways else [])


def test_an_export_over_one_in_another_format_leaves_nothing_of_it(tmp_path):
    run = run_of(*TINY_GPT, "norm=dyt")
    names = {}
    for to, folder in (("pt", "pt"), ("hf", "hf"), ("pt", "both"), ("hf", "both"), ("pt", "old"), ("hf", "old")):
        export.main([f"run={run}", "ckpt=last", f"format={to}", f"out={tmp_path / folder}"])
        names[folder] = sorted(file.name for file in (tmp_path / folder).iterdir())
        said = read_json(tmp_path / folder / "export.json")["files"]
        assert said == [name for name in names[folder] if name not in ("export.json", "mine.txt")]
        if folder == "old":  # as exports were before they left a mark
            (tmp_path / folder / "export.json").unlink()
            (tmp_path / folder / "mine.txt").write_text("mine")
    assert names["both"] == names["hf"] != names["pt"]
    assert names["old"] == sorted([*names["hf"], "mine.txt"])
    with pytest.raises(ValueError, match="shard=many"):
        export.main([f"run={run}", "ckpt=last", "format=pt", f"out={tmp_path / 'both'}", "shard=many"])
    assert sorted(file.name for file in (tmp_path / "both").iterdir()) == names["hf"]  # refused: nothing is lost
    # A person's own file in an export stays, and of a name that is to be written it is not replaced.
    export.main([f"run={run}", "ckpt=last", "format=pt", f"out={tmp_path / 'old'}"])
    (tmp_path / "old" / "config.json").write_text("mine")
    export.main([f"run={run}", "ckpt=last", "format=pt", f"out={tmp_path / 'old'}"])
    with pytest.raises(ValueError, match="config.json is there, which no export wrote; give another folder"):
        export.main([f"run={run}", "ckpt=last", "format=hf", f"out={tmp_path / 'old'}"])
    assert (tmp_path / "old" / "config.json").read_text() == "mine" and (tmp_path / "old" / "mine.txt").exists()
    assert (tmp_path / "old" / "config.yaml").exists()


def test_an_export_refuses_a_folder_with_files_of_others(tmp_path):
    run = run_of(*TINY_GPT, "norm=dyt")
    fetched = ("README.md", "config.json", "model.safetensors", "tokenizer.json")
    for name, files in {"mine": ("README.md", "config.yaml"), "theirs": fetched, "marked": ("export.json",)}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text(f"{file} of {name}")
        for to in ("pt", "hf"):
            with pytest.raises(ValueError, match=f"{files[0]} is there, which no export wrote; give another folder"):
                export.main([f"run={run}", "ckpt=last", f"format={to}", f"out={tmp_path / name}"])
        here = {file.name: file.read_text() for file in (tmp_path / name).iterdir()}
        assert here == {file: f"{file} of {name}" for file in files}
    config = (run / "config.yaml").read_text()
    with pytest.raises(ValueError, match="config.yaml is there, which no export wrote"):
        export.main([f"run={run}", "ckpt=last", f"out={run}"])
    assert (run / "config.yaml").read_text() == config
    with pytest.raises(ValueError, match="is a file; give a folder"):
        export.main([f"run={run}", "ckpt=last", f"out={tmp_path / 'mine' / 'README.md'}"])


def test_words_that_are_none():
    script = str(ROOT / "scripts/export.py")
    assert "format=onnx: choose from pt, timm, hf" in one_line(python(script, "run=x", "--format", "onnx"))
    for words, says in ((["--format"], "give run=<run directory>"), (["fromat=hf", "run=x"], "did you mean 'format'")):
        with pytest.raises(ValueError, match=says):
            export.parse(words)
    assert export.parse(["--format=timm", "run=a=b"]) == {"ckpt": "best", "format": "timm", "run": "a=b"}


@pytest.mark.slow
def test_a_folder_that_is_no_export_is_one_line(tmp_path):
    from dyt.sharing import load

    with pytest.raises(ValueError, match="not a run directory"):
        load(tmp_path)
    run = run_of(*TINY_GPT)
    export.main([f"run={run}", "ckpt=last", f"out={tmp_path / 'out'}"])
    file = tmp_path / "out/model.safetensors"
    whole = file.read_bytes()
    for bad in (whole[:200], b"", json.dumps({}).encode()):
        file.write_bytes(bad)
        with pytest.raises(ValueError, match="model.safetensors is missing or damaged"):
            load(tmp_path / "out")
