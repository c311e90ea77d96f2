"""Every yaml composes; the command line, recipes and hashes mean what they say; wrong words get one line."""

import re

import pytest

from dyt.config import compose, identity
from dyt.config.arguments import lookup
from dyt.config.compose import CONFIGS, SITES, load, options
from dyt.config.identity import NEUTRAL, config_hash, plan
from train import preflight, refuse_launcher

SHA = "0" * 64


def data_for(task: str) -> list[str]:
    return [n for n in options("data") if compose.option_task(n) == task]


@pytest.mark.parametrize(
    "model, norm",
    [*((m, "dyt") for m in options("model")), *((m, n) for m in ("gpt_nano", "vit_nano") for n in options("norm"))],
)
def test_every_model_and_every_norm_composes(model, norm):
    made = load([f"model={model}", f"norm={norm}"])
    assert made["model"]["name"] == model and made["norm"]["name"] == norm
    assert made["data"]["task"] == made["model"].get("reads", made["model"]["task"])  # a model brings data that fits
    assert set(made["norm"]["sites"]) == set(SITES)


@pytest.mark.parametrize("data", options("data"))
def test_every_data_set_composes(data):
    fitting = {"text": "gpt_nano", "genome": "hyena_nano", "sequence": "hyena_nano_classifier"}
    fitting |= {"episode": "dt_nano", "audio": "wav2vec2_nano"}
    model = fitting.get(compose.option_task(data), "vit_tiny")
    assert load([f"model={model}", f"data={data}"])["data"]["name"] == data


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes_and_its_keys_win(experiment):
    import yaml

    recipe = yaml.safe_load((CONFIGS / "experiment" / f"{experiment}.yaml").read_text())
    made = load([f"experiment={experiment}"])
    assert made["experiment"] == experiment
    groups = {k.removeprefix("override /"): v for d in recipe.pop("defaults", []) for k, v in d.items()}
    for group, option in groups.items():
        if group in ("model", "norm", "data"):
            assert made[group]["name"] == option
    for key, value in identity.flatten(recipe).items():
        value = value.replace("${norm.name}", made["norm"]["name"]) if isinstance(value, str) else value
        assert lookup(made, key) == value, key


@pytest.mark.parametrize("group", ["optim", "trainer", "logger"])
def test_every_other_option_composes(group):
    for name in options(group):
        load([f"{group}={name}"])


def test_a_recipe_header_states_claim_and_command():
    for path in (CONFIGS / "experiment").glob("*.yaml"):
        assert "Command: python train.py" in path.read_text(), path


def test_command_line_wins_over_recipe_and_model():
    made = load(["experiment=demo_gpt", "trainer.max_steps=7", "data=shakespeare"])
    assert made["trainer"]["max_steps"] == 7 and made["data"]["name"] == "shakespeare"
    assert made["model"]["embed_scale"] == "learnable"


def test_site_arguments_need_no_plus():
    made = load(["norm.sites.attn.alpha_init=0.8", "norm.sites.final.bias=false"])
    assert made["norm"]["sites"]["attn"]["alpha_init"] == 0.8
    assert made["norm"]["sites"]["final"]["bias"] is False
    assert made["norm"]["sites"]["mlp"]["alpha_init"] is None


# -- hashes and names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    "out_root=elsewhere data.path=somewhere logger.mode=disabled trainer.device=cpu data.workers=3 "
    "trainer.save_every=5 trainer.keep=9 data.cache_dir=x tag=s resume=fresh".split(),
)
def test_what_changes_no_number_changes_no_hash(override):
    assert config_hash(load([override]), SHA) == config_hash(load([]), SHA)


@pytest.mark.parametrize(
    "override",
    "seed=1 optim.lr=0.1 norm=derf norm.alpha_init=0.4 norm.sites.attn.alpha_init=0.4 model=vit_small "
    "trainer.max_steps=5 trainer.threads=1 trainer.precision=bf16 data.batch_size=64 data.mixup=0.1".split(),
)
def test_what_changes_a_number_changes_the_hash(override):
    assert config_hash(load([override]), SHA) != config_hash(load([]), SHA)
    assert config_hash(load([]), SHA) != config_hash(load([]), "1" * 64)


def test_the_same_settings_typed_otherwise_are_the_same_run():
    typed = load(["norm=dyt", "norm.gamma_init=inverse_alpha", "norm.alpha_init=1", "optim.lr=2e-3"])
    assert config_hash(typed, SHA) == config_hash(load(["norm=dyt_unit_gain", "norm.alpha_init=1.0"]), SHA)


def test_a_key_added_later_at_its_neutral_value_keeps_old_hashes(monkeypatch):
    old, new = load([]), load([])
    new["trainer"]["later"] = 0.0
    new["model"]["later"] = None  # null is off, and counts as absent without being listed
    assert config_hash(new, SHA) != config_hash(old, SHA)
    monkeypatch.setitem(NEUTRAL, "trainer.later", 0.0)
    assert config_hash(new, SHA) == config_hash(old, SHA)
    new["trainer"]["later"] = 0.5
    assert config_hash(new, SHA) != config_hash(old, SHA)


def test_hashes_are_pinned():
    """A change of this number makes every finished run run again: add the key to NEUTRAL instead."""
    assert config_hash(load(["model=gpt_nano", "norm=layernorm", "data=shakespeare"]), SHA) == "0c8d3df36b"
    assert config_hash(load(["model=vit_nano", "norm=dyt", "data=mnist5k"]), SHA) == "af3ec5ba53"


def test_directory_names():
    words = ["model=gpt_nano", "norm=layernorm", "optim.lr=0.002", "seed=3", "data.path=null", "out_root=a b"]
    made = plan(load(words), words)
    assert made.dir.parent.name == "default"
    assert made.dir.name.startswith("gpt_nano-layernorm-stdlib-optim.lr-0.002-s3-") and made.dir.name.endswith(
        made.hash
    )
    long = ["optim.betas=[0.9,0.95]", *(f"norm.sites.{s}.alpha_init=0.123456789" for s in SITES)]
    name = plan(load(long), long).dir.name
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name) and len(name) < 150


def test_a_directory_is_found_by_its_hash_however_typed(tmp_path):
    first = plan(load(["optim.lr=2e-3", "out_root=runs"]), ["optim.lr=2e-3"])
    first.dir.mkdir(parents=True)
    assert plan(load(["out_root=runs"]), []).dir == first.dir


# -- wrong words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, message",
    [
        (["norm=dty"], "norm=dty: unknown; did you mean 'dyt'? choose from batchnorm, derf, dyt"),
        (["model=vit_tin"], "model=vit_tin: unknown; did you mean 'vit_tiny'? choose from convnext_base"),
        (["experiment=demo"], "experiment=demo: unknown; did you mean"),
        (["trainer.max_step=1"], "trainer.max_step: unknown key; did you mean 'max_steps'? keys of trainer: max_steps"),
        (["nrm=dyt"], "nrm: unknown key; did you mean 'norm'? keys: model, norm, data"),
        (["norm.sites.atn.alpha_init=1"], "did you mean 'attn'? keys of norm.sites: attn, mlp, final"),
        (["norm.sites.attn.alpa_init=1"], "did you mean 'alpha_init'? keys of norm.sites.attn"),
        (["norm=layernorm", "norm.alpha_init=1"], "norm.alpha_init: unknown key; keys of norm=layernorm: name, kind"),
        (["norm.alpha_init.x=1"], "norm.alpha_init is a single value"),
        (["+trainer.foo=1"], "trainer.foo: unknown key; keys: max_steps"),
        (["+foo=1"], "foo: unknown key; keys: "),
        (["trainer.max_steps=abc"], "trainer.max_steps=abc: needs a whole number"),
        (["trainer.max_steps=1.5"], "trainer.max_steps=1.5: needs a whole number"),
        (["trainer.compile=maybe"], "trainer.compile=maybe: needs true or false"),
        (["optim.lr=hot"], "optim.lr=hot: needs a number"),
        (["trainer.max_steps=0"], "trainer.max_steps=0: must be at least 1"),
        (["trainer.max_steps=null", "trainer.max_epochs=null"], "set one, e.g. trainer.max_steps=1000"),
        (["optim.kind=muonn"], "optim.kind=muonn: did you mean 'muon'? choose from adamw, muon, sgd"),
        (["model=dt_nano", "trainer.tp=2"], "trainer.tp=2: splits a GPT, not model=dt_nano; type"),
        (["optim.lr=nan"], "optim.lr=nan: needs a finite number"),
        (["optim.clip_grad=0"], "optim.clip_grad=0.0: must be above 0"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0.0: must be above 0"),
        (["trainer.ema_decay=1"], "trainer.ema_decay=1.0: must be at least 0 and below 1"),
        (["norm.sites.attn=3"], "norm.sites.attn=3: has keys of its own, e.g. norm.sites.attn.alpha_init=0.8"),
        (["norm.sites=3"], "norm.sites=3: has keys of its own"),
        (["optim.betas=[0.9]"], "optim.betas=[0.9]: needs two numbers"),
        (["optim.betas=[0.9,1]"], "needs two numbers from 0 to below 1"),
        (["data.batch_size=many"], "data.batch_size=many: needs a whole number"),
        (["trainer.precision=fp16"], "trainer.precision=fp16: did you mean 'bf16'? choose from fp32, bf16, double"),
        (["logger.mode=on"], "choose from auto, online, offline, disabled"),
        (["seed=-1"], "seed=-1: must be at least 0"),
        (["seed=1,2"], "seed=1,2: several values are a sweep; add -m"),
        (["seed"], "seed: missing EQUAL"),
        (
            ["model=gpt_nano", "data=cifar10"],
            "choose data from hf_text, openwebtext, pile, shakespeare, shards, stdlib, wikitext2",
        ),
        (["data=shakespeare"], "choose data from cifar10, hf_image"),
        (["model=base/gpt"], "model"),
        (["norm=DYT"], "norm=DYT: unknown; did you mean 'dyt'?"),
        (["norm=null"], "norm=null: choose from batchnorm, derf, dyt"),
        (["experiment=null"], "experiment=null: leave it out"),
        (["+seed=1"], "+seed=1: that key is there; leave out the +"),
        (["hydra.launcher.partition=gpu"], "hydra.launcher.partition=gpu: of which launcher? Add hydra/launcher=slurm"),
        (["optim.lr=null"], "optim.lr: needs a value"),
        (["optim.lr=inf"], "optim.lr=inf: needs a finite number"),
        (["trainer.threads=100000"], "trainer.threads=100000: must be at least 1 and at most 1024"),
        (["data.batch_size=null"], "data.batch_size=None: needs a whole number"),
        (["data.batch_size=1.5"], "data.batch_size=1.5: needs a whole number"),
        (["data.eval_batch_size=0"], "data.eval_batch_size=0: must be at least 1"),
        (["data.workers=-1"], "data.workers=-1: must be at least 0"),
        (["data.patch_size=0"], "data.patch_size=0: must be at least 1"),
        (["data.crop_pct=0"], "data.crop_pct=0: must be at least 0.01"),
        (["data.val_fraction=abc"], "data.val_fraction=abc: needs a number"),
        (["model.name=null"], "model.name=None: needs a word"),
        (["out_root="], "out_root=: needs a word"),
    ],
)
def test_wrong_words_get_one_line_that_says_what_to_type(words, message):
    with pytest.raises(ValueError) as error:
        load(words)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_length_that_another_hides_is_refused():
    """``-m trainer.max_epochs=1,2`` of a GPT would be two equal runs under two hashes: its recipe counts steps."""
    for words, sweep in ((["trainer.max_epochs=1"], False), (["norm=dyt", "trainer.max_epochs=1,2"], True)):
        with pytest.raises(
            ValueError, match=r"trainer.max_epochs=1: trainer.max_steps=2000 would win; add trainer.max"
        ):
            preflight(["model=gpt_nano", *words], sweep)
    for words in (
        ["model=vit_nano", "trainer.max_epochs=1"],
        ["model=gpt_nano", "trainer.max_epochs=1", "trainer.max_steps=null"],
        ["model=gpt_nano", "trainer.max_epochs=1", "trainer.max_steps=9"],  # as a study's rows are typed
        ["model=gpt_nano", "trainer.max_epochs=null"],
    ):
        preflight(words, False)


@pytest.mark.parametrize("word", ["hydra/launcher=slurm", "hydra.launcher.partition=gpu"])
def test_a_launcher_without_a_sweep_is_refused(word):
    """Hydra would not use it, and the run would start on the login node."""
    with pytest.raises(ValueError, match="add -m"):
        refuse_launcher(["norm=dyt", word], sweep=False)
    refuse_launcher(["norm=dyt", word], sweep=True)
