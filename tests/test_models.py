"""Every model and every norm runs; the models are what they say they are."""

import itertools
import math
from dataclasses import replace

import pytest
import timm
import torch
import yaml
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dyt.config.compose import CONFIGS, load, options
from dyt.data import Spec
from dyt.data.order import seed_all
from dyt.norms.dynamic import DynamicTanh
from dyt.tasks import Place, build_task
from models import FAMILIES, build_model

from .helpers import shrunk

IMAGES = Spec("image", "", {}, classes=10, channels=3)
TEXT = Spec("text", "", {}, vocab_size=50)
EPISODES = Spec("episode", "", {}, classes=2, states=4, actions=2, steps=500)
SPOKEN = Spec("audio", "", {}, classes=10, rate=8000)
SPECS = {"text": TEXT, "image": replace(IMAGES, channels=1), "episode": EPISODES, "audio": SPOKEN}  # by what is read
SPECS["genome"] = Spec("genome", "", {}, vocab_size=6)
SPECS["sequence"] = Spec("sequence", "", {}, classes=10, vocab_size=6)


def made(*words, spec=None):
    config = load(list(words))
    seed_all(0)
    return build_model(config["model"], config["norm"], spec or (TEXT if config["model"]["task"] == "text" else IMAGES))


def batch(config, channels=3):
    g = torch.Generator().manual_seed(0)
    if config["data"]["task"] in ("text", "genome"):
        ids = torch.randint(50 if config["data"]["task"] == "text" else 5, (4, 17), generator=g)
        return ids[:, :-1], ids[:, 1:]
    if config["data"]["task"] == "episode":
        shape = (4, config["model"]["context"])
        states, taken = torch.randn(*shape, 4, generator=g), torch.randint(2, shape, generator=g)
        inputs = torch.rand(shape, generator=g), states, torch.eye(2)[taken], torch.arange(shape[1]).expand(shape)
        return inputs, torch.ones(shape, dtype=torch.bool)
    if config["data"]["task"] == "audio":
        return (torch.randn(4, 2400, generator=g), torch.tensor([2400, 2000, 1600, 1200])), torch.zeros(4)
    if config["data"]["task"] == "sequence":
        return torch.randint(5, (4, 17), generator=g), torch.randint(10, (4,), generator=g)
    size = [config["data"]["img_size"]] * 2
    return torch.randn(4, channels, *size, generator=g), torch.randint(10, (4,), generator=g)


def pairs():
    """The norms that differ in what they ask of a model with the smallest of each kind, every other model with DyT.

    The other norms, which take the same shapes, stand in one kind of text, picture and ConvNet.
    """
    small = [m for m in options("model") if "_nano" in m or m == "convnext_base"]
    few = ["convnext_base", "gpt_nano", "llama_nano", "resnet_nano", "vit_nano"]
    for norm in options("norm"):
        for model in small if norm in ("layernorm", "dyt", "batchnorm", "instancenorm", "none") else few:
            yield model, norm
    for model in sorted(set(options("model")) - set(small)):
        yield model, "dyt"


@pytest.mark.parametrize("model, norm", pairs())
def test_forward_and_backward_give_finite_gradients_to_every_parameter(model, norm):
    start = ["model.zero_init=false"] if model.startswith("dit") else []  # at zero most gradients are zero
    config = load([*shrunk(model), f"norm={norm}", *start])
    seed_all(0)
    network, factory = build_model(config["model"], config["norm"], SPECS[config["data"]["task"]])
    task = build_task(config, 10)
    task.loss(network.train(), *task.prepare(*batch(config, channels=1), Place(("train", 0, 0), 0))).backward()
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:  # a teacher's
            continue
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert sum(factory.count.values()) > 0


def test_every_family_has_a_model():
    bases = (CONFIGS / "model/base").glob("*.yaml")
    assert {yaml.safe_load(base.read_text())["family"] for base in bases} == set(FAMILIES)


@pytest.mark.parametrize(
    "model, millions, sites",
    [
        ("vit_base", 86.6, {"attn": 12, "mlp": 12, "final": 1}),
        ("vit_large", 304.3, {"attn": 24, "mlp": 24, "final": 1}),
        ("convnext_base", 88.6, {"stem": 1, "mlp": 36, "down": 3, "final": 1}),
        ("convnext_large", 197.8, {"stem": 1, "mlp": 36, "down": 3, "final": 1}),
        ("gpt2_124m", 124.4, {"attn": 12, "mlp": 12, "final": 1}),
        ("llama_130m", 134.1, {"attn": 12, "mlp": 12, "final": 1}),
        ("llama_7b", 6738.4, {"attn": 32, "mlp": 32, "final": 1}),
        ("llama_13b", 13015.9, {"attn": 40, "mlp": 40, "final": 1}),
        ("llama_34b", 33744.0, {"attn": 48, "mlp": 48, "final": 1}),
        ("llama_70b", 68976.6, {"attn": 80, "mlp": 80, "final": 1}),
        ("dit_b_4", 130.3, {"attn": 12, "mlp": 12, "final": 1}),
        ("dit_xl_2", 674.8, {"attn": 28, "mlp": 28, "final": 1}),  # 675.1 with fixed positions and a variance
        ("resnet50", 25.6, {"stem": 1, "conv": 48, "down": 4}),
        ("vgg19", 143.7, {"conv": 16}),
    ],
)
def test_published_sizes_and_norm_counts(model, millions, sites):
    vocabulary = ["experiment=paper_gpt2"] if model == "gpt2_124m" else []
    vocabulary = ["model.vocab_size=32000"] if model.startswith("llama") else vocabulary
    data = [] if vocabulary else ["data=imagenet1k"]
    with torch.device("meta"):
        network, factory = made(
            f"model={model}",
            "norm=rmsnorm" if model.startswith("llama") else "norm=layernorm",
            *data,
            *vocabulary,
            spec=None if vocabulary else Spec("image", "", {}, 1000, 3),
        )
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    assert dict(factory.count) == sites


@pytest.mark.parametrize("name, ours", [("vit_tiny_patch16_224", "vit_tiny"), ("test_convnext", "convnext_base")])
def test_layernorm_model_equals_timms_with_the_same_weights(name, ours):
    words = ["norm=layernorm", "data=imagenet1k"]
    words += ["model.img_size=32", "model.patch_size=8"] if ours == "vit_tiny" else [f"model.timm_name={name}"]
    network, _ = made(f"model={ours}", *words)
    sizes = {"img_size": 32, "patch_size": 8} if ours == "vit_tiny" else {}
    theirs = timm.create_model(name, num_classes=10, global_pool="avg", **sizes)
    weights = {k.replace(".norm.weight", ".weight"): v for k, v in network.state_dict().items()}
    weights = dict(zip(theirs.state_dict(), network.state_dict().values(), strict=True))
    assert [tuple(v.shape) for v in weights.values()] == [tuple(v.shape) for v in theirs.state_dict().values()]
    theirs.load_state_dict(weights)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network.eval()(images), theirs.eval()(images), rtol=1e-5, atol=1e-5)


def test_a_batchnorm_that_holds_its_activation_is_replaced_and_the_activation_stays():
    """timm's BatchNormAct2d: with norm=batchnorm the net is timm's, with norm=dyt no BatchNorm is left."""
    words = ["model=resnet_nano", "model.timm_name=skresnet18"]
    ours, theirs = made(*words, "norm=batchnorm")[0].double(), timm.create_model("skresnet18", num_classes=10).double()
    for value in filter(
        torch.is_floating_point, ours.buffers()
    ):  # as trained: what the running mean and variance do is seen
        nn.init.uniform_(value, 0.5, 1.5)
    for value in ours.parameters():
        nn.init.normal_(value, std=value[0].numel() ** -0.5)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))
    with torch.device("meta"):
        network, factory = made(*words, "norm=dyt")
    count = sum(isinstance(m, _BatchNorm) for m in theirs.modules())
    assert not any(isinstance(m, _BatchNorm) for m in network.modules())
    assert sum(isinstance(m, DynamicTanh) for m in network.modules()) == len(factory.made) == count == 36
    assert all(not norm.channels_last for _, norm in factory.made)


@pytest.mark.parametrize(
    "name, stays",
    [
        ("levit_128s", "stages.0.blocks.0.attn.qkv.bn, a BatchNorm1d"),
        ("efficientvit_b0", "head.classifier.1, a LayerNorm"),
    ],
)
def test_a_convnet_with_another_norm_than_batchnorm2d_is_refused(name, stays):
    with pytest.raises(ValueError) as refused, torch.device("meta"):
        made("model=resnet_nano", f"model.timm_name={name}", "norm=dyt")
    assert str(refused.value).startswith(f"model.timm_name={name}: {stays}, would stay as it is")


def test_same_seed_same_weights_whatever_the_norm():
    for small in (shrunk("gpt_nano"), shrunk("vit_nano")):
        first = made(*small, "norm=layernorm")[0].state_dict()
        for norm in ("dyt", "derf", "rmsnorm", "none", "batchnorm", "gatednorm"):
            second = made(*small, f"norm={norm}")[0].state_dict()
            shared = [k for k in first if "norm" not in k]
            assert len(shared) > 10 and all(torch.equal(first[k], second[k]) for k in shared), norm


# -- GPT -----------------------------------------------------------------------------------------------------------

STYLES = {
    "gpt2": shrunk("gpt_nano"),
    "llama": shrunk("llama_nano"),
    "grouped": [*shrunk("llama_nano"), "model.heads=4", "model.kv_heads=2", "model.qk_norm=true"],
}


@pytest.mark.parametrize("style", STYLES)
def test_gpt_is_causal(style):
    network = made(*STYLES[style])[0].eval()
    tokens = torch.randint(50, (2, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 7) % 50
    before, after = network(tokens), network(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


@pytest.mark.parametrize("style", STYLES)
def test_cache_gives_what_reading_all_gives(style):
    network = made(*STYLES[style])[0].eval()
    tokens = torch.randint(50, (2, 16), generator=torch.Generator().manual_seed(0))
    caches = [[] for _ in network.blocks]
    parts = [network(tokens[:, :5], caches), *(network(tokens[:, i : i + 1], caches) for i in range(5, 16))]
    torch.testing.assert_close(torch.cat(parts, dim=1), network(tokens), rtol=1e-4, atol=1e-5)


def test_generate_goes_past_the_context_and_is_greedy_at_zero():
    network = made(*STYLES["gpt2"])[0]
    start = torch.tensor([[1, 2, 3]])
    out = network.generate(start, 40, temperature=0)
    assert out.shape == (1, 43) and torch.equal(out[:, :3], start)
    assert out[0, 3] == network(start)[0, -1].argmax()
    assert torch.equal(out, network.generate(start, 40, temperature=0))
    assert network.generate(start, 5, top_k=1).tolist() == out[:, :8].tolist()


@pytest.mark.parametrize("temperature", [1e-320, 1e-3, 1e6])
def test_any_temperature_samples(temperature):
    network = made(*STYLES["gpt2"])[0]
    out = network.generate(torch.tensor([[1, 2, 3]]), 5, temperature=temperature)
    assert out.shape == (1, 8) and 0 <= out.min() and out.max() < 50


def test_embedding_scale_and_std():
    words = ["model=gpt_nano", "model.embed_scale=learnable", "model.embed_std=rsqrt_dim"]
    network, _ = made(*words, spec=Spec("text", "", {}, vocab_size=5000))
    assert network.embed_scale.shape == (1,) and network.embed_scale.item() == pytest.approx(math.sqrt(128))
    assert network.embed.weight.std().item() == pytest.approx(1 / math.sqrt(128), rel=0.02)
    token = (network.embed.weight * network.embed_scale).var().item()
    assert token == pytest.approx(1.0, rel=0.05)  # tokens enter with variance 1
    seen = []
    network.drop.register_forward_hook(lambda m, i, o: seen.append(o))
    ids = torch.arange(10)[None]
    network(ids)
    want = (network.embed.weight[:10] + network.positions.weight[:10]) * network.embed_scale
    torch.testing.assert_close(seen[0][0], want)
    assert made("model=gpt_nano")[0].embed_scale is None


@pytest.mark.parametrize("recipe, std", [([], 0.02 / math.sqrt(8)), (["model.residual_init=plain"], 0.02)])
def test_projections_back_into_the_residual_stream_start_as_gpt2s_or_as_llamas(recipe, std):
    network, _ = made("model=llama_nano", "model.depth=4", *recipe)
    for block in network.blocks:
        assert block.attn.out.weight.std().item() == pytest.approx(std, rel=0.05)
        assert block.mlp.down.weight.std().item() == pytest.approx(std, rel=0.05)
        assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_the_papers_llama_has_the_frameworks_start_and_the_scalar_for_dyt_alone():
    from dyt.studies.running.study import Study

    for run in Study("gpt_norms").runs("paper"):
        if "llama" in run.cell["model"]:
            model = run.config()["model"]
            assert model["residual_init"] == "plain" and model["embed_std"] == "rsqrt_dim"
            assert model["embed_scale"] == ("none" if run.cell["norm"].startswith("rmsnorm") else "learnable")


def test_paths_are_dropped_more_the_deeper_a_block_is():
    network, _ = made(*shrunk("vit_tiny"), "model.depth=3", "model.drop_path=0.4")
    for name in ("drop_path1", "drop_path2"):
        rates = [getattr(getattr(block, name), "drop_prob", 0.0) for block in network.blocks]
        assert rates == pytest.approx([0.0, 0.2, 0.4])


def by_hand(attention, x, normalise):
    """Causal attention with a norm on queries and keys, head by head, from its weights alone."""
    q, k, v = (part.unflatten(-1, (attention.heads, -1)) for part in (x @ attention.qkv.weight.T).chunk(3, dim=-1))
    out = torch.zeros_like(q)  # (B, T, H, D)
    for b, t, h in itertools.product(*map(range, q.shape[:3])):
        query = normalise(q[b, t, h], attention.q_norm)
        scores = torch.stack([query @ normalise(k[b, s, h], attention.k_norm) for s in range(t + 1)])
        shares = torch.softmax(scores / math.sqrt(len(query)), dim=0)
        out[b, t, h] = shares @ v[b, : t + 1, h]
    return out.flatten(2) @ attention.out.weight.T


def test_queries_and_keys_pass_their_norms():
    network, factory = made(*shrunk("gpt_nano"), "norm=dyt", "model.qk_norm=true")
    assert factory.count["qk"] == 2 * 2
    attention = network.double().blocks[0].attn
    with torch.no_grad():
        for number, p in enumerate((*attention.q_norm.parameters(), *attention.k_norm.parameters())):
            p += 0.1 * (number + 1)  # each its own
        attention.qkv.weight *= 50
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    found = attention(x)
    dyt = lambda v, norm: norm.weight * torch.tanh(norm.alpha * v) + norm.bias  # noqa: E731
    torch.testing.assert_close(found, by_hand(attention, x, dyt))
    assert not torch.allclose(found, by_hand(attention, x, lambda v, norm: v), rtol=0.1)
    found.square().sum().backward()
    for norm in (attention.q_norm, attention.k_norm):
        assert norm.alpha.grad.abs() > 0 and (norm.weight.grad.abs() > 0).all()


def test_tied_and_untied():
    gpt, llama = made("model=gpt_nano")[0], made("model=llama_nano")[0]
    assert gpt.head.weight is gpt.embed.weight and llama.head.weight is not llama.embed.weight
    assert not any(n.endswith("bias") and "norm" not in n for n, _ in llama.named_parameters())


def test_batchnorm_in_a_language_model_warns_once(caplog, monkeypatch):
    monkeypatch.setattr("dyt.norms.statistical._warned", False)
    made(*shrunk("gpt_nano"), "norm=batchnorm")
    made(*shrunk("gpt_nano"), "norm=instancenorm")
    assert [r.message for r in caplog.records if "sees the ones after it" in r.message] == [caplog.records[0].message]


AT_SITE, AT_END = "norm.sites.attn.kind=batchnorm", "norm.sites.final.kind=instancenorm"


@pytest.mark.parametrize(
    "words, begins",
    [
        (["model=gpt_nano", "norm=layernorm", AT_SITE], f"{AT_SITE} takes"),
        (["model=gpt_nano", "norm=batchnorm", "model.task=own"], "norm=batchnorm takes"),  # a task of one's own
        (["model=dt_nano", "norm=batchnorm"], "norm=batchnorm takes"),
        (["model=dt_nano", "norm=dyt", AT_END], f"{AT_END} takes"),
        (["model=hyena_nano", "norm=dyt", AT_SITE], f"{AT_SITE} takes"),
        (["model=dnabert_nano", "norm=batchnorm"], None),  # masked: each place may see all
        (["model=vit_nano", "norm=layernorm", AT_SITE], None),
        (["model=gpt_nano", "norm=batchnorm", *(f"norm.sites.{s}.kind=dyt" for s in ("attn", "mlp", "final"))], None),
    ],
)
def test_a_causal_model_warns_of_norms_over_tokens_at_whatever_site(words, begins, caplog, monkeypatch):
    monkeypatch.setattr("dyt.norms.statistical._warned", False)
    config = load([*shrunk(words[0].partition("=")[2]), *(w for w in words[1:] if w != "model.task=own")])
    spec = SPECS[config["data"]["task"]]
    build_model(config["model"] | ({"task": "own"} if "model.task=own" in words else {}), config["norm"], spec)
    said = [r.message for r in caplog.records if "sees the ones after it" in r.message]
    assert len(said) == (begins is not None) and all(line.startswith(begins) for line in said)


@pytest.mark.parametrize(
    "words, message",
    [
        (["model=gpt_nano", "model.heads=3"], "model.dim=128 must be a multiple of model.heads=3"),
        (["model=gpt_nano", "model.mlp=relu"], "model.mlp=relu: choose from gelu, swiglu"),
        (["model=gpt_nano", "model.depth=two"], "model.depth=two: needs a whole number"),
        (["model=gpt_nano", "model.depth=0"], "model.depth=0: must be at least 1"),
        (["model=gpt_nano", "model.vocab_size=3"], "smaller than the data's 50"),
        (["model=gpt_nano", "+model.dpth=3"], "model.dpth: unknown key; did you mean 'depth'?"),
        (
            ["model=gpt_nano", "norm.sites.stem.alpha_init=1"],
            "model=gpt_nano has no site 'stem'; its sites: attn, mlp, final",
        ),
        (["model=vit_nano", "model.patch_size=9"], "model.img_size=28 is not a multiple of model.patch_size=9"),
        (["model=gpt_nano", "model.mlp_dim=-3"], "model.mlp_dim=-3: must be at least 1"),
        (["model=gpt_nano", "model.embed_std=-1"], "model.embed_std=-1: must be at least 0"),
        (["model=gpt_nano", "model.dropout=2"], "model.dropout=2: must be at least 0 and below 1"),
        (["model=vit_nano", "model.depth=0"], "model.depth=0: must be at least 1"),
        (["model=vit_nano", "model.timm_name=vit_tny"], "timm has no such model"),
        (["model=vit_nano", "model.timm_name=resnet18"], "not a ViT or ConvNeXt"),
        (["model=convnext_base", "data=cifar10", "model.depth=3"], "convnext_base has no such argument"),
        (["model=convnext_base"], "data.img_size=28: convnext_base needs at least 32; type data.img_size=32"),
        (
            ["model=vit_nano", "model.family=vt"],
            "model.family=vt: choose from convnet, decision_transformer, dino, dit, dnabert, gpt, hyena, mae, vit, wav",
        ),
    ],
)
def test_wrong_arguments_say_what_to_type(words, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        made(*words)
