"""What an override says is what the config holds, or it is refused with the word to type."""

import dataclasses
import math
import shlex
import time
import typing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dyt.config import compose
from dyt.config.arguments import lookup
from dyt.config.check import CHOICES
from dyt.config.compose import CONFIGS, load
from dyt.config.identity import config_hash
from dyt.config.values import TEXTS, WHOLE, as_typed, quoted

from .helpers import TINY_GPT, train

SHA = "0" * 64
GPT = ["model=gpt_nano"]
CHEAP = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def held(word: str, *more: str):
    return lookup(load([*more, word]), word.partition("=")[0])


# -- text stays text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", "2024_01|1e5|007|true|a=b|a, b|x#y|[1]|-x|~/\u00fc|{a}|it's".split("|"))
def test_text_stays_text(text):
    keys = ["tag", "out_root", "init_from", "data.path", "data.revision", "data.text_key", "data.hub_config"]
    config = load([*GPT, *(f"{key}={text}" for key in keys)])
    assert {lookup(config, key) for key in keys} == {text}


@pytest.mark.parametrize("key", ["tag", "data.path", "init_from", "out_root", "data.text_key"])
def test_empty_is_not_null(key):
    for value in ("", "''", '""'):
        with pytest.raises(ValueError, match=f"{key}=: needs a word"):
            load([*GPT, f"{key}={value}"])


def test_none_is_refused_with_the_word_to_type():
    keys = ["tag", "data.path", "init_from", "trainer.threads", "optim.clip_grad", "norm.eps"]
    for key in keys:
        with pytest.raises(ValueError, match=f"{key}=None: type {key}=null"):
            load(["norm=layernorm", f"{key}=None"])
    for null in ("null", "Null"):
        config = load(["norm=layernorm", *(f"{key}={null}" for key in keys)])
        assert [lookup(config, key) for key in keys] == [None] * len(keys)


def test_none_makes_no_second_hash():
    assert config_hash(load(["data.image_key=null"]), SHA) == config_hash(load([]), SHA)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20))
@CHEAP
def test_any_text_is_held_as_typed_or_refused(text):
    try:
        config = load([f"data.path={text}", f"tag={text}"])
    except ValueError as error:
        assert "\n" not in str(error)
        return
    want = None if text.lower() == "null" else _unquoted(text)
    assert config["data"]["path"] == config["tag"] == want


def _unquoted(text: str) -> str:
    """A value that is quoted already is Hydra's to read."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12))
@CHEAP
def test_what_is_quoted_is_read_back(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(f"tag={quoted(text)}").value() == text


def test_what_must_be_quoted_is_shown_ready_to_paste():
    with pytest.raises(ValueError) as error:
        load(["data.interpolation=a b=c"])
    paste = str(error.value).rpartition("type ")[2]
    (word,) = shlex.split(paste)
    assert held(word) == "a b=c"


def test_a_sweep_over_texts():
    assert as_typed("data.path=a b.txt,2024_01", sweep=True) == "data.path='a b.txt','2024_01'" or (
        as_typed("data.path=a b.txt,2024_01", sweep=True) == "data.path=a b.txt,'2024_01'"
    )
    open("a,b.txt", "w").close()
    assert as_typed("data.path=a,b.txt", sweep=True) == "data.path='a,b.txt'"
    assert as_typed("trainer.max_steps=1e3,1e4,7", sweep=True) == "trainer.max_steps=1000,10000,7"


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", sorted(WHOLE & {"trainer.max_steps", "model.context", "data.batch_size", "seed"}))
def test_whole_floats_are_taken(key):
    value = held(f"{key}=1e2", *GPT)
    assert value == 100 and isinstance(value, int)
    assert config_hash(load([*GPT, f"{key}=1e2"]), SHA) == config_hash(load([*GPT, f"{key}=100"]), SHA)


@pytest.mark.parametrize(
    "words, message",
    [
        (["norm.alpha_init=nan"], "norm.alpha_init=nan: needs a finite number"),
        (["norm.sites.attn.alpha_init=inf"], "norm.sites.attn.alpha_init=inf: needs a finite number"),
        (["norm.gamma_init=-inf"], "norm.gamma_init=-inf: needs a finite number"),
        (["norm=layernorm", "norm.eps=-1"], "norm.eps=-1: must be at least 0"),
        (["norm=layernorm", "norm.sites.mlp.eps=-1"], "norm.sites.mlp.eps=-1: must be at least 0"),
        (["norm=batchnorm", "norm.momentum=2"], "norm.momentum=2: must be at least 0 and at most 1"),
        (["data.std=[0]"], "data.std=[0]: must be above 0"),
        (["data.mean=[nan]"], "data.mean=[nan]: needs a finite number"),
        (["data.mean=[0.5,0.5]"], "data.mean=[0.5, 0.5]: needs one number (grey) or three (colour)"),
        (["data.mean=[a]"], "data.mean=['a']: needs one number"),
        (["data.mean=[]"], "data.mean=[]: needs one number"),
        (["data.mean=0.5"], "data.mean=0.5: needs one number"),
        (["data.mean=[0.5,0.5,0.5]"], "need equally many numbers"),
        (["data.scale=[nan,1]"], "data.scale=[nan, 1]: needs a finite number"),
        (["data.scale=[1,0.5]"], "needs two shares of the area, rising"),
        ([*GPT, "model.context=0"], "model.context=0: must be at least 1"),
        ([*GPT, "model.context=abc"], "model.context=abc: needs a whole number"),
        ([*GPT, "model.context=1.5"], "model.context=1.5: needs a whole number"),
        ([*GPT, "model.dim=2000000000"], "model.dim=2000000000: must be at least 1 and at most"),
        ([*GPT, "model.dropout=nan"], "model.dropout=nan: needs a finite number"),
        ([*GPT, "model.embed_std=nan"], "model.embed_std=nan: needs a finite number"),
        (["optim.betas=[nan,0.9]"], "needs two numbers from 0 to below 1"),
        (["trainer.max_epochs=inf"], "trainer.max_epochs=inf: needs a finite number"),
        (["~norm.sites"], "~norm.sites: a key cannot be removed; type norm.sites=null"),
        (["~norm"], "~norm: a key cannot be removed"),
        (["trainer.compile=1"], "trainer.compile=1: would be read as True; type true or false"),
        (["deterministic=yes"], "deterministic=yes: would be read as True; type true or false"),
        (["seed=true"], "seed"),
        (["optim.lr=true"], "optim.lr"),
        (["optim.warmup_steps=1.5"], "optim.warmup_steps"),
    ],
)
def test_numbers_are_finite_and_in_their_range(words, message):
    with pytest.raises(ValueError) as error:
        load(words)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("words", [["model.dim=1048576", "model.heads=1"], ["model.context=67108864"]])
def test_a_model_that_no_machine_holds_is_one_line_and_writes_nothing(words, tmp_path):
    began = time.monotonic()
    with pytest.raises(ValueError) as error:
        train(*GPT, "model.depth=16384", *words)
    assert "\n" not in str(error.value) and time.monotonic() - began < 60
    assert not (tmp_path / "runs").exists()


def typed_keys() -> list[tuple[str, type]]:
    """Every key of the typed part of the config with its type, null left out."""
    parts = {"": compose.Config, "trainer.": compose.TrainerConfig, "optim.": compose.OptimConfig}
    parts |= {"logger.": compose.LoggerConfig}
    found = []
    for prefix, part in parts.items():
        for field in dataclasses.fields(part):
            kinds = [k for k in (typing.get_args(field.type) or (field.type,)) if k is not type(None)]
            if kinds[0] in (int, float, bool, str):
                found.append((prefix + field.name, kinds[0]))
    return found


VALUES = st.one_of(
    st.integers(-3, 10**12).map(str),
    st.floats().map(repr),
    st.floats(0, 1).map(repr),
    st.sampled_from(
        "true false null None yes on 1e3 1_000 0x10 1.0 .5 5. abc 2024_01 '5' -0 +1 1e400 auto fresh".split()
    ),
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=8),
)


@pytest.mark.parametrize("kind", [int, float, bool, str])
@given(data=st.data())
@CHEAP
def test_what_a_typed_key_accepts_is_what_the_config_holds(kind, data):
    key = data.draw(st.sampled_from([k for k, of in typed_keys() if of is kind]))
    typed = data.draw(VALUES)
    try:
        value = held(f"{key}={typed}")
    except ValueError as error:
        assert "\n" not in str(error)
        return
    if value is None:
        assert typed.lower() == "null"
    elif kind is bool:
        assert typed.lower() == str(value).lower()
    elif kind is str:
        assert value == _unquoted(typed) or "${" in typed
    else:
        assert not isinstance(value, bool) and float(value) == float(typed) and math.isfinite(value)


def test_every_text_key_is_listed():
    import yaml

    texts = {key for key, kind in typed_keys() if kind is str}
    assert texts - set(CHOICES) <= TEXTS
    base = {
        f"data.{k}"
        for name in ("image", "text")
        for k in yaml.safe_load((CONFIGS / f"data/base/{name}.yaml").read_text())
    }
    assert {k for k in TEXTS if k.startswith("data.")} - {"data.name"} <= base
    whole = {key for key, kind in typed_keys() if kind is int}
    assert whole <= WHOLE


def test_cuts_of_a_command_line_are_one_line_each():
    for word in ("model.dim=17", "model.heads=3", "model.embed_scale=5"):
        with pytest.raises(ValueError) as error:
            train(*TINY_GPT, word)
        assert "\n" not in str(error.value)
