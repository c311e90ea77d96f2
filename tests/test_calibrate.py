"""Calibration, advice and the embedding's scale, each against numbers known beforehand."""

import copy
import io
import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dyt
from dyt.conversion.calibrate import Reservoir, Swap, fit
from dyt.norms.dynamic import Derf, DynamicTanh

from .helpers import shrunk
from .test_models import made


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm1, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x):
        return x + self.down(F.gelu(self.up(self.norm1(x))))


class Tiny(nn.Module):
    """Tokens (B, T) -> logits (B, T, 16); what follows is the next number of a fixed walk."""

    def __init__(self, dim=32, depth=3):
        super().__init__()
        self.embed = nn.Embedding(16, dim)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 16)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def trained() -> tuple[Tiny, torch.Tensor, torch.Tensor]:
    """A model that has learned a permutation of 16 tokens, its inputs and its targets."""
    torch.manual_seed(0)
    model, walk = Tiny(), torch.randperm(16)
    tokens = torch.randint(16, (64, 8))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(tokens).flatten(0, 1), walk[tokens].flatten()).backward()
        optimizer.step()
    return model, tokens, walk[tokens]


def loss(model, tokens, targets) -> float:
    with torch.no_grad():
        return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten()).item()


@pytest.mark.parametrize("learns", ["learned", "ratio", "log", "fixed"])
def test_a_target_of_dyts_own_shape_gives_its_parameters_back(learns):
    x = 3 * torch.randn(4000, 6, generator=torch.Generator().manual_seed(1))
    gamma, beta = torch.linspace(0.5, 2, 6), torch.linspace(-1, 1, 6)
    norm = DynamicTanh(6, alpha=learns)
    assert fit(norm, x, gamma * torch.tanh(0.4 * x) + beta) > 0.9999
    assert norm.slope().item() == pytest.approx(0.4, rel=0.02)
    assert torch.allclose(norm.weight, gamma, rtol=0.02) and torch.allclose(norm.bias, beta, atol=0.02)


def test_alpha_of_each_channel_and_derfs_shift_come_back():
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1))
    alpha = torch.tensor([0.3, 1.0, 3.0])
    norm = DynamicTanh(3, alpha_shape="channel")
    fit(norm, x, 2 * torch.tanh(alpha * x))
    assert torch.allclose(norm.slope(), alpha, rtol=0.05)
    derf = Derf(3)
    fit(derf, x, 2 * torch.erf(0.8 * x + 0.5))
    assert derf.slope().item() == pytest.approx(0.8, rel=0.05) and derf.shift.item() == pytest.approx(0.5, abs=0.05)


def test_in_tanhs_linear_range_the_gain_is_the_slope():
    """A linear target: alpha goes to its least, and gamma alpha is the target's slope."""
    x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(1))
    norm = DynamicTanh(4)
    fit(norm, x, 1.5 * x - 2)
    assert torch.allclose(norm.weight * norm.alpha, torch.full((4,), 1.5), rtol=1e-3)
    assert torch.allclose(norm.bias, torch.full((4,), -2.0), atol=1e-3)


def test_without_beta_and_without_gamma_what_is_there_is_fitted():
    x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(1))
    norm, bare = DynamicTanh(4, bias=False), DynamicTanh(4, affine=False)
    fit(norm, x, 3 * torch.tanh(x))
    fit(bare, x, torch.tanh(0.7 * x))
    assert torch.allclose(norm.weight, torch.full((4,), 3.0), rtol=0.02)
    assert bare.slope().item() == pytest.approx(0.7, rel=0.02)


def test_a_calibrated_model_starts_near_the_trained_one():
    model, tokens, targets = trained()
    before = loss(model, tokens, targets)
    naive = loss(dyt.convert(copy.deepcopy(model), keep_affine=True), tokens, targets)
    model.blocks[0].train()
    model.blocks[1].eval()
    before_it = {name: (p.requires_grad, p.grad) for name, p in model.named_parameters() if "norm" not in name}
    held = {name: grad.clone() for name, (_, grad) in before_it.items() if grad is not None}
    made = dyt.calibrate(model, [(tokens[:32], targets[:32]), (tokens[32:], targets[32:])])
    assert made is model and sum(isinstance(m, DynamicTanh) for m in model.modules()) == 4
    assert model.blocks[0].training and not model.blocks[1].training
    after = {name: p for name, p in model.named_parameters() if name in before_it}
    assert {name: (p.requires_grad, p.grad) for name, p in after.items()} == before_it and held
    assert all(torch.equal(after[name].grad, grad) for name, grad in held.items())
    assert before < 0.1 and loss(model, tokens, targets) < before + 0.1 * (naive - before)
    F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten()).backward()
    assert model.norm.alpha.grad is not None


def test_a_hook_that_changes_the_norms_output_counts_once():
    """The norm's own output is fitted; the hook doubles what the new one makes of it, as it did before."""

    def near(hook=None) -> torch.Tensor:
        torch.manual_seed(0)
        x, model = torch.randn(256, 8), nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4, bias=False))
        if hook:
            model[1].register_forward_hook(hook)
        return dyt.calibrate(model, [x])(x)

    torch.testing.assert_close(near(lambda norm, args, out: 2 * out), 2 * near())


def test_derf_and_options_and_keyword_batches():
    model, tokens, targets = trained()
    before = loss(model, tokens, targets)
    dyt.calibrate(model, [{"tokens": tokens}], norm="derf", tokens=256, alpha="ratio")
    assert all(isinstance(b.norm1, Derf) and b.norm1.learns == "ratio" for b in model.blocks)
    assert loss(model, tokens, targets) < before + 0.3


@pytest.mark.parametrize(
    "model, batches, options, said",
    [
        (Tiny, [], {}, "calibrate: no batches; give some inputs"),
        (Tiny, ["text"], {}, "cannot take batch 0 (TypeError: a batch of type str is neither a tensor nor a dict)"),
        (Tiny, [torch.full((1, 2), 99)], {}, "cannot take batch 0 (IndexError"),
        (Tiny, [torch.zeros(1, 2).long()], {"norm": "rmsnorm"}, "norm='rmsnorm' has no alpha to fit"),
        (Tiny, [torch.zeros(1, 2).long()], {"tokens": 0}, "tokens=0: needs at least 2"),
        (lambda: nn.Linear(2, 2), [torch.zeros(1, 2)], {}, "has no LayerNorm or RMSNorm to replace"),
        (lambda: nn.Sequential(nn.LayerNorm(2)), [torch.full((3, 2), math.nan)], {}, "not finite"),
    ],
)
def test_what_cannot_be_calibrated_is_one_line_and_leaves_the_model(model, batches, options, said):
    model = model()
    before = [type(m) for m in model.modules()]
    with pytest.raises(ValueError) as error:
        dyt.calibrate(model, batches, **options)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert [type(m) for m in model.modules()] == before


def test_a_norm_that_is_not_reached_is_named_and_may_be_skipped():
    model, batches = Tiny(), [torch.zeros(2, 4).long()]
    model.spare = nn.LayerNorm(32)
    with pytest.raises(ValueError, match="do not reach the norm spare; type skip='spare'"):
        dyt.calibrate(model, batches)
    dyt.calibrate(model, batches, skip="spare")
    assert isinstance(model.spare, nn.LayerNorm) and isinstance(model.norm, DynamicTanh)


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_converted_before_is_left_alone(fails):
    """It may have been trained since: calibrate fits, and where it fails takes back, only what it converted itself."""
    model, batches = dyt.convert(Tiny(), only="blocks.0.*"), [torch.zeros(2, 4).long()]
    for p in model.blocks[0].norm1.parameters():
        nn.init.normal_(p)
    types, weights = [type(m) for m in model.modules()], copy.deepcopy(model.state_dict())
    told = str(dyt.conversion_report(model))
    if fails:
        nn.init.constant_(model.blocks[2].down.bias, math.nan)  # found at the last of the three norms
        weights = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match="the norm norm has inputs or outputs that are not finite"):
            dyt.calibrate(model, batches)
        assert [type(m) for m in model.modules()] == types and str(dyt.conversion_report(model)) == told
    else:
        dyt.calibrate(model, batches)
        assert sum(isinstance(m, DynamicTanh) for m in model.modules()) == 4
        weights = {k: v for k, v in weights.items() if not k.startswith(("blocks.1.norm1", "blocks.2.norm1", "norm"))}
    after = model.state_dict()
    assert "blocks.0.norm1.alpha" in weights
    assert all(torch.equal(after[k].nan_to_num(7), v.nan_to_num(7)) for k, v in weights.items())
    dyt.revert(model)  # takes back both
    assert sum(isinstance(m, nn.LayerNorm) for m in model.modules()) == 4


def test_a_failed_calibration_leaves_torchs_fast_path_as_an_earlier_conversion_set_it():
    layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    dyt.convert(layers, only="layers.0.*")
    before = [vars(m).get("activation_relu_or_gelu") for m in layers.modules()]
    assert before.count(0) == 1 and layers.use_nested_tensor is False
    with pytest.raises(ValueError, match="not finite"):
        dyt.calibrate(layers, [torch.full((2, 3, 8), math.nan)])
    assert [vars(m).get("activation_relu_or_gelu") for m in layers.modules()] == before
    assert layers.use_nested_tensor is False and isinstance(layers.layers[0].norm1, DynamicTanh)
    dyt.revert(layers)
    assert layers.use_nested_tensor and all(m.activation_relu_or_gelu for m in layers.layers)


def test_the_reservoir_keeps_rows_of_all_batches_alike():
    kept, twin = Reservoir(500), Reservoir(500)
    for start in range(0, 10_000, 1000):
        kept.add(torch.arange(start, start + 1000.0)[:, None])
        twin.add(-torch.arange(start, start + 1000.0)[:, None])
    assert kept.rows().shape == (500, 1) and 4400 < kept.rows().mean() < 5600
    assert torch.equal(kept.rows(), -twin.rows())


def test_two_models_norms_are_exchanged_by_name():
    old, like = Tiny(), dyt.convert(Tiny())
    weight = old.norm.weight.detach().clone().fill_(3)
    old.norm.weight.data.fill_(3)
    swap = Swap.of(old, like)
    assert isinstance(old.norm, nn.LayerNorm)
    swap.carry_over()
    swap.put(swap.order)
    assert old.norm is like.norm and torch.equal(like.norm.weight, weight)


def test_gamma_and_beta_are_carried_over_where_the_old_norm_holds_them_further_in():
    """Where channels stand second, as in a ConvNeXt's stem, a LayerNorm stands in a layer that turns its input."""
    words = [*shrunk("convnext_base"), "data=mnist5k"]
    (old, olds), (like, news) = (made(*words, f"norm={kind}") for kind in ("layernorm", "dyt"))
    for p in old.parameters():
        nn.init.normal_(p)
    theirs = [{k.rpartition(".")[2]: p.detach().clone() for k, p in m.named_parameters()} for _, m in olds.made]
    swap = Swap.of(old, like)
    swap.carry_over()
    swap.put(swap.order)
    assert len(news.made) == len(theirs) == len(swap.order) == 14
    for (_, new), before in zip(news.made, theirs, strict=True):
        assert torch.equal(new.weight, before["weight"]) and torch.equal(new.bias, before["bias"])


# -- advice ------------------------------------------------------------------------------------------------------------


def test_advice_has_the_right_numbers():
    model = Tiny(dim=64)
    nn.init.normal_(model.embed.weight, std=0.02)
    tokens = torch.arange(16).repeat(4, 1)
    told = dyt.advise(model, [tokens])
    assert [p.name for p in told.places] == ["blocks.0.norm1", "blocks.1.norm1", "blocks.2.norm1", "norm"]
    weight = model.embed.weight.detach()
    assert told.places[0].std == pytest.approx(weight.std(correction=0).item(), rel=1e-4)
    assert told.embedding == "embed" and told.embedding_std == pytest.approx(weight.std(correction=0).item(), rel=1e-4)
    assert told.places[0].alpha == 1.0 and told.places[0].saturated == 0.0
    assert "add_embed_scale(model, 'embed')" in str(told) and str(told).splitlines()[-1] == told.call
    exec(told.call, {"dyt": dyt, "model": model})
    assert isinstance(model.norm, DynamicTanh) and model.norm.alpha.item() == 1.0


def test_advice_goes_by_width_and_site():
    from dyt.conversion.advise import _alpha0

    assert [_alpha0(w, "attn") for w in (128, 1024, 2048, 4096, 5120, 8192)] == [1.0, 1.0, 1.0, 0.8, 0.8, 0.2]
    assert [_alpha0(w, "mlp") for w in (128, 1024, 2048, 4096, 5120, 8192)] == [1.0, 1.0, 0.5, 0.2, 0.2, 0.05]


def test_what_advice_says_to_type_gives_each_norm_the_alpha_of_its_table():
    """Two widths at one site."""

    class Block(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.norm1, self.norm2, self.mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.Linear(dim, dim)

        def forward(self, x):
            return x + self.mlp(self.norm2(self.norm1(x)))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tok, self.y_embedder = nn.Embedding(5, 1024), nn.Embedding(1000, 1024)
            self.narrow, self.up, self.wide = Block(1024), nn.Linear(1024, 4096), Block(4096)

        def forward(self, tokens):
            return self.wide(self.up(self.narrow(self.tok(tokens) + self.y_embedder(tokens))))

    model = Model()
    told = dyt.advise(model, [torch.arange(5)[None]])
    assert told.embedding == "tok" and {p.alpha for p in told.places} == {1.0, 0.2}
    exec(told.call, {"dyt": dyt, "model": model})
    made = {name: round(m.alpha.item(), 4) for name, m in model.named_modules() if isinstance(m, DynamicTanh)}
    assert made == {p.name: p.alpha for p in told.places}


def test_saturation_post_norm_and_zero_starts_are_warned_of():
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 16))
    nn.init.zeros_(model[1].weight)
    x = torch.full((2, 4, 8), 10.0) * torch.tensor([-1.0, 1.0]).repeat(4)
    told = dyt.advise(model, [x])
    assert told.places[0].std == pytest.approx(10) and told.places[0].saturated == 1.0  # 0.5 x 10 > 2
    assert [w.split(" ")[0] for w in told.warnings] == ["2", "1", "100%"]
    assert told.embedding is None and told.places[0].alpha == 0.5
    assert not any(isinstance(m, DynamicTanh) for m in model.modules())


class Mixed(nn.Module):
    """Convolution and BatchNorm first, then a LayerNorm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.norm(self.stem(x).mean((2, 3))))


def test_the_call_for_a_model_with_batchnorms_keeps_them_and_says_so():
    model = Mixed()
    told = dyt.advise(model, [torch.randn(2, 3, 8, 8)])
    assert eval(told.call, {"dyt": dyt, "model": model}) is model
    assert isinstance(model.norm, DynamicTanh) and sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 2
    assert "stem.1, a BatchNorm2d, and 1 more stay as they are" in str(told)
    plain = dyt.advise(Tiny(), [torch.zeros(1, 2).long()])
    assert "batchnorm" not in plain.call and "BatchNorm" not in str(plain)


def test_advice_without_batches_or_norms_is_one_line():
    with pytest.raises(ValueError, match="advise: no batches"):
        dyt.advise(Tiny(), [])
    with pytest.raises(ValueError, match="Linear has no LayerNorm or RMSNorm"):
        dyt.advise(nn.Linear(2, 2), [torch.zeros(1, 2)])


# -- the embedding's scale ---------------------------------------------------------------------------------------------


def test_the_scale_is_sqrt_d_and_trains():
    model = Tiny(dim=64)
    tokens = torch.arange(16)[None]
    plain = model.embed(tokens)
    assert dyt.add_embed_scale(model) is model
    assert torch.allclose(model.embed(tokens), 8 * plain)
    model(tokens).square().mean().backward()
    scale = model.embed.embed_scale.scale
    assert scale.item() == 8.0 and scale.grad.abs().item() > 0
    again = copy.deepcopy(model)
    torch.nn.init.constant_(scale, 2.0)
    assert torch.allclose(model.embed(tokens), 2 * plain) and torch.allclose(again.embed(tokens), 8 * plain)
    again.load_state_dict(model.state_dict())
    assert torch.allclose(again.embed(tokens), 2 * plain)


def test_the_scale_is_put_where_an_embedding_is_and_once():
    model = dyt.add_embed_scale(Tiny())
    with pytest.raises(ValueError, match="embed is followed by a scale already"):
        dyt.add_embed_scale(model)
    with pytest.raises(ValueError, match="head is no torch.nn.Embedding; name one of: embed"):
        dyt.add_embed_scale(model, "head")
    with pytest.raises(ValueError, match="Linear is no torch.nn.Embedding; name one of: none here"):
        dyt.add_embed_scale(nn.Linear(2, 2))


def test_modules_that_share_the_embedding_are_scaled_by_name_where_they_run():
    """transformers 5: a T5's `shared` never runs, and a BART's embedding has a number called embed_scale."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.embed, self.norm = nn.Embedding(50, 16), nn.Embedding(50, 16), nn.LayerNorm(16)
            nn.init.normal_(self.shared.weight, std=0.02)
            self.embed.weight, self.embed.embed_scale = self.shared.weight, 1.0

        def forward(self, tokens):
            return self.norm(self.embed(tokens) * self.embed.embed_scale)

    model, tokens = Two(), torch.arange(50)[None]
    told = dyt.advise(model, [tokens])
    assert told.embedding == "embed" and told.embedding_std == pytest.approx(0.02, rel=0.1)
    (warning,) = told.warnings
    assert "dyt.add_embed_scale(model, 'embed')" in warning and "shared" not in warning
    with pytest.raises(ValueError, match="shared and embed share one weight; name each that runs"):
        dyt.add_embed_scale(model)
    plain = model.embed(tokens)
    assert torch.allclose(dyt.add_embed_scale(model, "embed").embed(tokens), 4 * plain)
    assert model.embed.embed_scale == 1.0 and "embed.dyt_embed_scale.scale" in model.state_dict()
    model(tokens).square().sum().backward()
    assert model.embed.dyt_embed_scale.scale.grad is not None
    with pytest.raises(ValueError, match="embed is followed by a scale already"):
        dyt.add_embed_scale(model, "embed")


class Words(nn.Module):
    """A language model of a kind of embedding, with the same numbers each time."""

    def __init__(self, kind=nn.Embedding):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = kind(16, 64), nn.Linear(64, 16, bias=False)

    def forward(self, tokens):
        return self.head(self.embed(tokens))


class Own(nn.Embedding):
    """An embedding with a forward of its own, as in Gemma 3."""

    def forward(self, tokens):
        return super().forward(tokens) + 1


def parametrized(*args) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Embedding(*args))


@pytest.mark.parametrize("kind", [nn.Embedding, Own, parametrized])
def test_what_was_compiled_without_the_scale_is_not_run_with_it(kind):
    tokens, plain = torch.arange(16)[None], Words(kind)
    torch.compiler.reset()
    model, compiled = Words(kind), torch.compile(plain, backend="eager")
    before = compiled(tokens)
    assert torch.allclose(torch.compile(dyt.add_embed_scale(model), backend="eager")(tokens), 8 * before)
    dyt.add_embed_scale(plain)  # the same model, compiled and called before
    assert torch.allclose(compiled(tokens), 8 * before)
    compiled(tokens).square().mean().backward()
    assert plain.embed.embed_scale.scale.grad.abs().item() > 0
    assert torch.allclose(torch.compile(Words(kind), backend="eager")(tokens), before)


@pytest.mark.parametrize("kind", [nn.Embedding, Own])
def test_a_scaled_embedding_is_copied_pickled_and_exported_as_one(kind):
    tokens, model = torch.arange(16)[None], dyt.add_embed_scale(Words(kind))
    assert isinstance(model.embed, kind) and set(model.state_dict()) == {
        "embed.weight",
        "embed.embed_scale.scale",
        "head.weight",
    }
    file, want = io.BytesIO(), 8 * Words(kind)(tokens)
    torch.save(model, file)
    file.seek(0)
    for again in (copy.deepcopy(model), copy.copy(model), torch.load(file, weights_only=False)):
        assert torch.allclose(again(tokens), want) and type(again.embed) is type(model.embed)
        with pytest.raises(ValueError, match="embed is followed by a scale already"):
            dyt.add_embed_scale(again)
    assert torch.allclose(torch.export.export(model, (tokens,)).module()(tokens), want)
    assert torch.allclose(torch.fx.symbolic_trace(model)(tokens), want)
    norm = nn.utils.parametrizations.weight_norm
    assert torch.allclose(copy.deepcopy(norm(model.embed))(tokens), 8 * Words(kind).embed(tokens), atol=1e-4)
    nn.utils.parametrize.remove_parametrizations(model.embed, "weight")
    assert torch.allclose(model(tokens), want, atol=1e-4)


def test_an_embedding_that_was_parametrized_before_it_was_scaled_comes_back_scaled():
    tokens, model = torch.arange(16)[None], dyt.add_embed_scale(Words(parametrized))
    want = 8 * Words(parametrized)(tokens)
    assert torch.allclose(copy.deepcopy(model)(tokens), want)
    nn.utils.parametrize.remove_parametrizations(model.embed, "weight")
    assert torch.allclose(model(tokens), want, atol=1e-4)
    assert type(model.embed) is type(dyt.add_embed_scale(Words()).embed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["T5", "Bart"])
def test_encoders_and_decoders_of_transformers_are_scaled_where_they_run(name):
    transformers = pytest.importorskip("transformers")
    small = {"T5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}}
    small["Bart"] = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "encoder_layers": 1}
    small["Bart"] |= {"decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = getattr(transformers, f"{name}Config")(vocab_size=40, **small[name])
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(std=0.02)
    tokens = torch.arange(3, 30)[None]
    batch = {"input_ids": tokens, "decoder_input_ids": tokens}
    (warning,) = (w for w in dyt.advise(model, [batch]).warnings if "add_embed_scale" in w)
    before = model(**batch).logits
    calls = re.findall(r"dyt\.add_embed_scale\(model, '([\w.]+)'\)", warning)
    for called in calls:
        dyt.add_embed_scale(model, called)
    assert calls and not torch.allclose(model(**batch).logits, before)
    model(**batch).logits.square().sum().backward()
    scales = [p for n, p in model.named_parameters() if "embed_scale" in n]
    assert len(scales) == len(calls) and all(p.grad is not None for p in scales)


def test_a_class_embedding_of_an_image_model_is_no_token_embedding():
    class Dit(nn.Module):
        def __init__(self):
            super().__init__()
            self.y_embedder = nn.Module()
            self.y_embedder.embedding_table, self.norm = nn.Embedding(11, 16), nn.LayerNorm(16)

        def forward(self, x):
            return self.norm(x + self.y_embedder.embedding_table.weight[0])

    told = dyt.advise(Dit(), [torch.randn(4, 16)])
    assert told.embedding is None and told.places[0].alpha == 0.5
