"""convert() on somebody else's models: timm families and Hugging Face model types, small and with random weights.

The counts were written by hand from each architecture at the depth given (two norms a block and one at the end is
2 * 2 + 1): first what is replaced by class name, then what is left, and what a refusal says.
"""

import copy
import io
import pickle
import re
from collections import Counter

import pytest
import timm
import torch
from torch import nn

from dyt import DynamicTanh, conversion_report, convert, kernels, plan, revert

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_compiling():
    """The kernels have tests of their own; building one here costs more than all models."""
    kernels.force("reference")
    yield
    kernels.force("auto")


VIT = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
FOUR = {"depths": (1, 1, 1, 1), "dims": (16, 16, 32, 32)}
PYRAMID = {"img_size": 64, "embed_dims": (16, 16, 32, 32), "num_heads": (1, 1, 2, 2)}
TIMM = {  # (picture size, arguments, replaced, left)
    "test_vit": (160, {}, {"LayerNorm": 2 * 6 + 1}, {}),
    "test_vit2": (64, {}, {"LayerNorm": 2 * 8 + 1}, {}),
    "test_vit3": (160, {}, {"LayerNorm": 2 * 9 + 1 + 1}, {}),  # one more in the attention pool
    "test_vit4": (64, {}, {"RmsNorm": 2 * 9 + 1}, {}),
    "test_vit_relpos": (160, {}, {"LayerNorm": 2 * 9 + 1}, {}),
    "vit_base_patch16_clip_224": (32, VIT, {"LayerNorm": 1 + 2 * 2 + 1}, {}),
    "vit_base_patch16_siglip_224": (32, VIT, {"LayerNorm": 2 * 2 + 1 + 1}, {}),
    "vit_small_patch16_18x2_224": (32, VIT, {"LayerNorm": 4 * 2 + 1}, {}),
    "vit_large_patch14_xp_224": (32, VIT, {"RmsNorm": 1 + (1 + 2) * 2 + 1}, {}),  # parallel blocks, queries and keys
    "vit_tiny_r_s16_p8_224": (32, VIT | {"patch_size": 1}, {"LayerNorm": 2 * 2 + 1}, {"GroupNormAct": 1}),
    "vit_base_patch16_rope_224": (32, VIT, {"LayerNorm": 2 * 2 + 1}, {}),
    "vit_small_plus_patch16_dinov3": (32, VIT, {"LayerNorm": 2 * 2 + 1}, {}),
    "samvit_base_patch16_224": (64, VIT | {"img_size": 64}, {"LayerNorm": 2 * 2, "LayerNorm2d": 1}, {}),
    "naflexvit_base_patch16_gap": (64, {"embed_dim": 32, "depth": 2, "num_heads": 2}, {"LayerNorm": 2 * 2 + 1}, {}),
    "aimv2_large_patch14_224": (32, VIT, {"RmsNorm": 1 + 2 * 2 + 1}, {}),
    "beit_base_patch16_224": (32, VIT, {"LayerNorm": 2 * 2 + 1}, {}),
    "deit_tiny_distilled_patch16_224": (32, VIT, {"LayerNorm": 2 * 2 + 1}, {}),
    "eva02_tiny_patch14_224": (32, VIT, {"LayerNorm": 2 * 2 + 1}, {}),
    "cait_xxs24_224": (32, VIT, {"LayerNorm": 2 * 2 + 2 * 2 + 1}, {}),  # two blocks of class attention
    "convit_tiny": (32, VIT, {"LayerNorm": 2 * 2 + 1}, {}),
    "qwen3_vit_88m": (32, VIT, {"LayerNorm": 2 * 2 + 1}, {}),
    "gemma4_vit_167m": (32, VIT, {"RmsNorm": 7 * 2 + 1}, {}),  # before and after each half, queries, keys, values
    "hiera_tiny_224": (64, {"img_size": 64, "embed_dim": 16, "stages": (1, 1, 1, 1)}, {"LayerNorm": 2 * 4 + 1}, {}),
    "test_convnext": (64, {}, {"LayerNorm": 9, "LayerNorm2d": 1 + 3 + 1}, {}),  # blocks; stem, downsampling, head
    "convnext_atto_rms": (64, FOUR, {"RmsNorm2d": 1 + 4 + 3 + 1}, {}),
    "convnextv2_atto": (64, FOUR, {"LayerNorm2d": 1 + 4 + 3 + 1}, {"GlobalResponseNorm": 4}),
    "edgenext_xx_small": (
        64,
        {"dims": (16, 16, 32, 32), "depths": (1, 1, 2, 1)},
        {"LayerNorm": 5 + 3, "LayerNorm2d": 1 + 3 + 1},
        {},
    ),
    "test_mambaout": (64, {}, {"LayerNorm": 2 + 5 + 3 + 1}, {}),
    "test_coatnet": (160, {}, {"LayerNorm2d": 2 * 3 + 1}, {"BatchNormAct2d": 2 + 3 * 1 + 2}),
    "test_maxvit": (160, {}, {"LayerNorm": 4 * 4, "LayerNorm2d": 1}, {"BatchNormAct2d": 1 + 3 * 4}),
    "davit_tiny": (
        64,
        {"depths": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 32), "num_heads": (2, 2, 2, 2)},
        {"LayerNorm": 4 * 4, "LayerNorm2d": 1 + 3 + 1},  # each block attends over space and over channels
        {},
    ),
    "gcvit_xxtiny": (224, {}, {"LayerNorm": 2 * 12 + 1, "LayerNorm2d": 2 * 4}, {}),
    "caformer_s18": (
        64,
        {},
        {"LayerNorm2dNoBias": 2 * 6 + 4, "LayerNormNoBias": 2 * 12, "LayerNorm2d": 1, "LayerNorm": 1},
        {},
    ),
    "poolformerv2_s12": (64, {}, {"LayerNorm2dNoBias": 4, "LayerNorm2d": 1}, {"GroupNorm1NoBias": 2 * 12}),
    "poolformer_s12": (64, {}, {"LayerNorm2d": 1}, {"GroupNorm1": 2 * 12}),
    "focalnet_tiny_srf": (64, {}, {"LayerNorm2d": 2 * 12 + 4 + 1}, {}),
    "mixer_s32_224": (64, {"img_size": 64}, {"LayerNorm": 2 * 8 + 1}, {}),
    "gmlp_s16_224": (64, {"img_size": 64}, {"LayerNorm": 2 * 30 + 1}, {}),  # one a block and one in its gate
    "mobilevit_xxs": (64, {}, {"LayerNorm": 2 * (2 + 4 + 3) + 3}, {"BatchNormAct2d": 32}),
    "mvitv2_tiny": (64, {"img_size": 64}, {"LayerNorm": 5 * 10 + 1}, {}),  # two a block, three for q, k and v
    "nest_tiny": (64, {"img_size": 64}, {"LayerNorm": 2 * 12 + 2 + 1}, {}),
    "pit_ti_224": (64, {"img_size": 64}, {"LayerNorm": 2 * 12 + 1}, {}),
    "pvt_v2_b0": (64, {"depths": (1, 1, 1, 1)}, {"LayerNorm": 2 * 4 + 3 + 4 + 3 + 1}, {}),
    "sequencer2d_s": (
        56,
        {"img_size": 56, "layers": (1, 1, 1, 1), "embed_dims": (16,) * 4, "hidden_sizes": (8,) * 4},
        {"LayerNorm": 2 * 4 + 1},
        {},
    ),
    "swin_tiny_patch4_window7_224": (
        56,
        {"img_size": 56, "embed_dim": 12, "depths": (1, 1, 1), "num_heads": (2, 2, 2)},
        {"LayerNorm": 1 + 2 * 3 + 2 + 1},
        {},
    ),
    "swinv2_tiny_window8_256": (
        64,
        {"img_size": 64, "embed_dim": 12, "depths": (1, 1, 1), "num_heads": (2, 2, 2)},
        {"LayerNorm": 1 + 2 * 3 + 2 + 1},
        {},
    ),
    "tnt_s_patch16_224": (
        32,
        {"img_size": 32, "embed_dim": 32, "inner_dim": 16, "depth": 2, "num_heads_outer": 2},
        {"LayerNorm": 2 + (2 + 2 + 2) * 2 + 1},
        {},
    ),
    "twins_pcpvt_small": (64, PYRAMID | {"depths": (1, 1, 1, 1)}, {"LayerNorm": 4 + 2 * 4 + 3 + 1}, {}),
    "volo_d1_224": (64, {"img_size": 64}, {"LayerNorm": 2 * (18 + 2) + 1}, {"BatchNorm2d": 3}),
    "xcit_nano_12_p16_224": (
        64,
        {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2},
        {"LayerNorm": 3 * 2 + 2 * 2 + 1},
        {"BatchNorm2d": 4 + 2},
    ),
    "vitamin_small_224": (64, {"img_size": 64}, {"LayerNormAct2d": 1 + 6, "LayerNorm2d": 1, "LayerNorm": 43}, {}),
    "rdnet_tiny": (64, {"growth_rates": (8,) * 7}, {"LayerNorm2d": 29}, {}),
    "tiny_vit_5m_224": (224, {}, {"LayerNorm": 2 * 10, "LayerNorm2d": 1}, {"BatchNorm2d": 27}),
    "test_efficientnet_ln": (64, {}, {"LayerNormAct2d": 13}, {}),
    "coat_lite_tiny": (64, {"img_size": 64}, {"LayerNorm": 4 + 2 * 8 + 1}, {}),
    "efficientformer_l1": (224, {}, {"LayerNorm": 2 * 1 + 1}, {"BatchNorm2d": 33}),
    "crossvit_9_240": (240, {}, {"LayerNorm": 44}, {}),
    "efficientvim_m1": (64, {}, {"LayerNorm": 3, "LayerNorm2d": 7}, {"BatchNorm2d": 38}),
}
TIMM_REFUSED = {
    "test_resnet": r"no LayerNorm or RMSNorm to replace; conv1.1, a BatchNorm2d, measures over the batch",
    "test_efficientnet": r"bn1, a BatchNormAct2d, measures over the batch",
    "test_efficientnet_gn": r"bn1, a GroupNormAct, measures groups of channels.*groupnorm='replace'",
    "test_efficientnet_evos": r"bn1, an EvoNorm2dS0, does something else than LayerNorm or RMSNorm",
    "test_nfnet": "NormFreeNet has no LayerNorm or RMSNorm to replace; one that is a call",
    "test_byobnet": "stem.bn, a BatchNormAct2d, measures over the batch",
    "resmlp_12_224": "blocks.0.norm1, an Affine, only scales and shifts; it measures nothing",
    "mobilevitv2_050": r"a BatchNormAct2d, measures.*a GroupNorm1, measures groups.*groupnorm='replace'",
}

TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
PICTURE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 16,
}
SPEECH = PICTURE | {
    "layerdrop": 0.0,  # no layer left out at random
    "conv_dim": [16, 16],
    "conv_stride": [5, 2],
    "conv_kernel": [10, 3],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
BOTH = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
}
EXPERTS = {"num_experts_per_tok": 1, "moe_intermediate_size": 16}
HUGGINGFACE = {  # (config, replaced, left)
    "gpt2": (GPT, {"LayerNorm": 2 * 2 + 1}, {}),
    "gptj": (GPT | {"rotary_dim": 4}, {"LayerNorm": 2 + 1}, {}),  # attention and feed-forward share one
    "gpt_neox": (TEXT, {"LayerNorm": 2 * 2 + 1}, {}),
    "llama": (TEXT, {"LlamaRMSNorm": 2 * 2 + 1}, {}),
    "mistral": (TEXT, {"MistralRMSNorm": 2 * 2 + 1}, {}),
    "mixtral": (TEXT | EXPERTS | {"num_local_experts": 2}, {"MixtralRMSNorm": 2 * 2 + 1}, {}),
    "qwen2": (TEXT, {"Qwen2RMSNorm": 2 * 2 + 1}, {}),
    "qwen3": (TEXT, {"Qwen3RMSNorm": 4 * 2 + 1}, {}),  # queries and keys
    "qwen3_next": (
        TEXT
        | EXPERTS
        | {
            "num_experts": 2,
            "shared_expert_intermediate_size": 16,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
        {"Qwen3NextRMSNorm": 2 * 2 + 2 + 1},
        {"Qwen3NextRMSNormGated": 1},
    ),
    "phi": (TEXT, {"LayerNorm": 2 + 1}, {}),
    "phi3": (TEXT, {"Phi3RMSNorm": 2 * 2 + 1}, {}),
    "gemma": (TEXT, {"GemmaRMSNorm": 2 * 2 + 1}, {}),
    "gemma2": (TEXT, {"Gemma2RMSNorm": 4 * 2 + 1}, {}),
    "gemma3_text": (TEXT, {"Gemma3RMSNorm": (4 + 2) * 2 + 1}, {}),
    "olmo": (TEXT, {"OlmoLayerNorm": 2 * 2 + 1}, {}),
    "olmo2": (TEXT, {"Olmo2RMSNorm": (2 + 2) * 2 + 1}, {}),
    "cohere": (TEXT, {"CohereLayerNorm": 2 + 1}, {}),
    "stablelm": (TEXT, {"LayerNorm": 2 * 2 + 1}, {}),
    "starcoder2": (TEXT, {"LayerNorm": 2 * 2 + 1}, {}),
    "nemotron": (TEXT, {"NemotronLayerNorm1P": 2 * 2 + 1}, {}),
    "granite": (TEXT, {"GraniteRMSNorm": 2 * 2 + 1}, {}),
    "glm4": (TEXT, {"Glm4RMSNorm": 4 * 2 + 1}, {}),
    "llama4_text": (
        TEXT | {"num_local_experts": 2, "intermediate_size_mlp": 48},
        {"Llama4TextRMSNorm": 2 * 2 + 1},
        {"Llama4TextL2Norm": 2},
    ),
    "opt": (TEXT | {"ffn_dim": 48, "word_embed_proj_dim": 32}, {"LayerNorm": 2 * 2 + 1}, {}),
    "bloom": ({"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4}, {"LayerNorm": 1 + 2 * 2 + 1}, {}),
    "mamba": (TEXT | {"state_size": 4}, {"MambaRMSNorm": 2 + 1}, {}),
    "mamba2": (
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "chunk_size": 8,
        },
        {"Mamba2RMSNorm": 2 + 1},
        {"MambaRMSNormGated": 2},
    ),
    "rwkv": (TEXT | {"context_length": 64}, {"LayerNorm": 1 + 2 * 2 + 1}, {}),
    "bert": (TEXT, {"LayerNorm": 1 + 2 * 2}, {}),
    "roberta": (TEXT, {"LayerNorm": 1 + 2 * 2}, {}),
    "albert": (TEXT | {"embedding_size": 16}, {"LayerNorm": 1 + 2}, {}),  # its layers are one
    "distilbert": (
        {"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
        {"LayerNorm": 1 + 2 * 2},
        {},
    ),
    "modernbert": (TEXT, {"LayerNorm": 1 + 2 * 2 - 1 + 1}, {}),  # the first layer has none before attention
    "xlnet": ({"vocab_size": 64, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}, {"LayerNorm": 2 * 2}, {}),
    "t5": (
        {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
        {"T5LayerNorm": 2 * 2 + 1 + 3 * 2 + 1},
        {},
    ),
    "bart": (BOTH, {"LayerNorm": 1 + 2 * 2 + 1 + 3 * 2}, {}),
    "whisper": (
        BOTH | {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 32, "pad_token_id": 0},
        {"LayerNorm": 2 * 2 + 1 + 3 * 2 + 1},
        {},
    ),
    "vit": (PICTURE, {"LayerNorm": 2 * 2 + 1}, {}),
    "dinov2": (PICTURE, {"LayerNorm": 2 * 2 + 1}, {}),
    "swin": (
        {"image_size": 32, "patch_size": 4, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
        {"LayerNorm": 1 + 2 * 2 + 1 + 1},
        {},
    ),
    "convnext": (
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        {"ConvNextLayerNorm": 1 + 2 + 1, "LayerNorm": 1},
        {},
    ),
    "convnextv2": (
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        {"ConvNextV2LayerNorm": 1 + 2 + 1, "LayerNorm": 1},
        {"ConvNextV2GRN": 2},
    ),
    "segformer": (
        {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]},
        {"LayerNorm": 4 + 2 * 4 + 3 + 4},  # patches, blocks, reduced keys, ends of stages
        {},
    ),
    "clip_text_model": (TEXT, {"LayerNorm": 2 * 2 + 1}, {}),
    "wav2vec2": (SPEECH, {"LayerNorm": 1 + 1 + 2 * 2}, {"GroupNorm": 1}),
    "hubert": (SPEECH | {"feat_extract_norm": "layer"}, {"LayerNorm": 2 + 1 + 1 + 2 * 2}, {}),
}


def tensors(out):
    """The tensors of an output, whatever holds them."""
    if isinstance(out, torch.Tensor):
        return [out]
    parts = out.values() if isinstance(out, dict) else out if isinstance(out, tuple | list) else ()
    return [t for part in parts for t in tensors(part)]


def check(model, run, replaced, left):
    """Counts, forward and backward in train and eval, gamma of channel 0, and back to the bit."""
    model.eval()
    with torch.no_grad():
        for p in model.parameters():  # a head or a gamma of zeros would hide everything
            p.add_(0.02 * torch.randn_like(p))
    classes = Counter(type(m).__name__ for m in model.modules())
    assert {k: classes[k] for k in replaced | left} == replaced | left
    norms = {e.name: e.norm for e in plan(model)}
    with torch.no_grad():
        was = tensors(run(model))
    keys = set(model.state_dict())
    convert(model, alpha_init=0.7, batchnorm="keep")
    report = conversion_report(model)
    assert Counter(e.cls for e in report if e.fate == "replaced") == Counter(replaced)
    assert Counter(e.cls for e in report if e.fate == "keep") == Counter(left) and all(e.reason for e in report.left)
    seen, handles = {}, []
    for module in model.modules():
        if "_dyt_original" in vars(module):
            handles.append(module.register_forward_pre_hook(lambda m, args: seen.setdefault(m, args[0].detach())))
    with torch.no_grad():
        now = tensors(run(model))
    for handle in handles:
        handle.remove()
    assert all(t.isfinite().all() for t in now) and not all(map(torch.equal, now, was))
    done = [e for e in report if e.fate == "replaced"]
    for entry in done:
        shape = (2, 5, entry.width) if entry.axis == -1 else (2, entry.width, 5, 5)
        one_channel(entry.module, norms[entry.name], seen.get(entry.module, torch.randn(shape)))

    trained = copy.deepcopy(model).train()
    sum(t.float().square().mean() for t in tensors(run(trained)) if t.requires_grad).backward()
    assert [e.name for e in done if e.module not in seen] == []
    for entry in done:
        for p in trained.get_submodule(entry.name).parameters():
            assert p.grad is not None and p.grad.isfinite().all(), entry.name

    revert(model)
    assert set(model.state_dict()) == keys
    with torch.no_grad():
        assert all(map(torch.equal, tensors(run(model)), was))
    return len(done)


@torch.no_grad()
def one_channel(layer, norm, x):
    """Gamma of channel 0 at zero makes channel 0 a constant, of the old norm and the new, and touches nothing else."""
    old = vars(layer)["_dyt_original"][0]
    new = next(m for m in layer.modules() if isinstance(m, DynamicTanh))
    if norm.scale is None:
        y = old(x).float().square().mean(norm.axis)
        assert new.weight is None and torch.allclose(y, torch.ones_like(y), atol=0.05)
        return
    for module, parameter, zero in ((old, old._parameters[norm.scale], -norm.offset), (layer, new.weight, 0.0)):
        before, kept = module(x), parameter.detach().clone()
        parameter.flatten()[0] = zero
        after = module(x)
        parameter.copy_(kept)
        rest = torch.arange(1, norm.width)
        assert torch.equal(after.index_select(norm.axis, rest), before.index_select(norm.axis, rest))
        channel = after.select(norm.axis, 0)
        assert (channel == channel.flatten()[0]).all()
        if norm.bias is None:
            assert not channel.any()
        varies = x.select(norm.axis, 0)
        assert before.select(norm.axis, 0).std() > 0 or norm.after or varies.std() == 0


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    torch.manual_seed(0)
    size, arguments, replaced, left = TIMM[name]
    model = timm.create_model(name, num_classes=3, **arguments)
    images = torch.randn(2, 3, size, size)
    assert check(model, lambda m: m(images), replaced, left) == sum(replaced.values())


@pytest.mark.parametrize("name", TIMM_REFUSED)
def test_timm_models_that_cannot_be_converted_say_why(name):
    model = timm.create_model(name, num_classes=3)
    before = {n: id(m) for n, m in model.named_modules()}
    with pytest.raises(ValueError, match=TIMM_REFUSED[name]):
        convert(model, batchnorm="keep")
    assert {n: id(m) for n, m in model.named_modules()} == before


def huggingface(name, **more):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name, **HUGGINGFACE[name][0], **more)
    return transformers.AutoModel.from_config(config)


def huggingface_input(name):
    ids = torch.randint(3, 64, (2, 8), generator=torch.Generator().manual_seed(1))
    if name in ("vit", "dinov2", "swin", "convnext", "convnextv2", "segformer"):
        return {"pixel_values": torch.randn(2, 3, 32, 32)}
    if name in ("wav2vec2", "hubert"):
        return {"input_values": torch.randn(2, 400)}
    if name == "whisper":
        return {"input_features": torch.randn(2, 8, 32), "decoder_input_ids": ids}
    return {"input_ids": ids} | ({"decoder_input_ids": ids} if name == "t5" else {})


@pytest.mark.parametrize("name", HUGGINGFACE)
def test_huggingface(name):
    model, inputs = huggingface(name), huggingface_input(name)
    _, replaced, left = HUGGINGFACE[name]
    assert check(model, lambda m: m(**inputs), replaced, left) == sum(replaced.values())


def test_the_tables_are_as_long_as_promised():
    families = {timm.models.model_entrypoint(n).__module__ for n in TIMM}
    assert len(families) >= 30 and len(HUGGINGFACE) >= 25


# -- against the papers' own replacement -------------------------------------------------------------------------------


@pytest.mark.parametrize("name, count", [("vit_base_patch16_224", 25), ("convnext_base", 41)])
def test_the_models_of_the_paper(name, count):
    with torch.device("meta"):
        model = convert(timm.create_model(name))
    assert len(conversion_report(model)) == count == sum(isinstance(m, DynamicTanh) for m in model.modules())
    assert all(p.is_meta for p in model.parameters())


class ByHand(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), 0.7))
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return torch.tanh(self.alpha * x) * self.weight + self.bias


@pytest.mark.parametrize("dtype, relative", [(torch.float64, 0), (torch.float32, 1e-4)])
def test_a_converted_vit_is_the_one_that_was_replaced_by_hand(dtype, relative):
    """To 1e-6 in all; in float32 the sum of a large gradient has a rounding of its own on top."""
    torch.manual_seed(0)
    ours = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=4, num_classes=10).to(dtype)
    theirs = copy.deepcopy(ours)
    for block in theirs.blocks:
        block.norm1, block.norm2 = ByHand(192).to(dtype), ByHand(192).to(dtype)
    theirs.norm = ByHand(192).to(dtype)
    convert(ours, alpha_init=0.7)
    images, labels = torch.randn(4, 3, 32, 32, dtype=dtype), torch.arange(4)
    for model in (ours, theirs):
        nn.functional.cross_entropy(model(images), labels).backward()
    assert torch.allclose(ours(images), theirs(images), atol=1e-6, rtol=0)
    mine, other = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert mine.keys() == other.keys()
    for name, p in mine.items():
        assert torch.allclose(p.grad.flatten(), other[name].grad.flatten(), atol=1e-6, rtol=relative), name


# -- one model of each kind, everywhere it may go ----------------------------------------------------------------------


def last_axis():
    return timm.create_model("test_vit", num_classes=3), (torch.randn(2, 3, 160, 160),)


def axis_1():
    return timm.create_model("test_convnext", num_classes=3), (torch.randn(2, 3, 64, 64),)


def with_activation():
    return timm.create_model("test_efficientnet_ln", num_classes=3), (torch.randn(2, 3, 64, 64),)


def of_torch():
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, nn.LayerNorm(16), enable_nested_tensor=False), (torch.randn(2, 5, 16),)


def of_huggingface():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.gpt = huggingface("llama", use_cache=False)

        def forward(self, ids):
            return self.gpt(input_ids=ids, use_cache=False)[0]

    return Tokens(), (torch.randint(3, 64, (2, 8)),)


KINDS = [last_axis, axis_1, with_activation, of_torch, of_huggingface]


def made(kind):
    torch.manual_seed(0)
    model, inputs = kind()
    model = convert(model.eval(), alpha_init=0.7)
    with torch.no_grad():
        return model, inputs, model(*inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(kind, dtype):
    model, inputs, want = made(kind)
    half = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
    got = model.to(dtype)(*half)
    assert got.dtype == dtype and torch.allclose(got.float(), want, atol=0.15, rtol=0.1)
    got.float().square().mean().backward()
    layers = [m for m in model.modules() if isinstance(m, DynamicTanh)]
    assert all(p.grad.isfinite().all() and p.dtype == dtype for m in layers for p in m.parameters())
    before = kind()[0].eval().to(dtype)  # cast first, then converted
    assert convert(before)(*half).dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_meta_and_back(kind):
    model, inputs, want = made(kind)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    model.to("meta").to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, DynamicTanh):
            module.reset_parameters()
            assert (module.alpha == 0.7).all() and (module.weight == 1).all()
    model.load_state_dict(state)
    for name, value in buffers.items():  # those that are in no state_dict
        model.get_buffer(name).copy_(value)
    with torch.no_grad():
        assert torch.equal(model(*inputs), want)


@pytest.mark.parametrize("kind", KINDS)
def test_pickle_and_torch_save(kind):
    model, inputs, want = made(kind)
    if kind is of_huggingface:
        model, inputs, want = model.gpt, {"input_ids": inputs[0]}, want
    call = (lambda m: m(**inputs)[0]) if isinstance(inputs, dict) else (lambda m: m(*inputs))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    with torch.no_grad():
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
            assert torch.equal(call(other), want)
            assert not any(isinstance(m, DynamicTanh) for m in revert(other).modules())


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_without_a_break(kind, backend):
    model, inputs, want = made(kind)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    got = compiled(*inputs)
    assert torch.allclose(got, want, atol=1e-5)
    got.square().mean().backward()
    assert all(m.alpha.grad is not None for m in model.modules() if isinstance(m, DynamicTanh))


@pytest.mark.parametrize("kind", KINDS)
def test_exported(kind):
    model, inputs, want = made(kind)
    program = torch.export.export(model, inputs)
    assert torch.allclose(program.module()(*inputs), want, atol=1e-5)
    assert not re.search(r"dyt[_:.]", "\n".join(str(n.target) for n in program.graph.nodes if n.op == "call_function"))


def traceable():  # a ViT is not, converted or not: it asks for the size of its picture
    return timm.create_model("test_mambaout", num_classes=3), (torch.randn(2, 3, 64, 64),)


@pytest.mark.parametrize("kind", [traceable, axis_1, with_activation])
def test_traced_by_fx(kind):
    model, inputs, want = made(kind)
    with torch.no_grad():
        assert torch.allclose(torch.fx.symbolic_trace(model)(*inputs), want, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_in_onnxruntime(kind, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, inputs, want = made(kind)
    torch.onnx.export(model, inputs, tmp_path / "m.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "m.onnx")
    feed = {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)}
    assert torch.allclose(torch.from_numpy(session.run(None, feed)[0]), want, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"use_rmsnorm": True}, {"use_simple_rmsnorm": True}, {"use_scalenorm": True}])
def test_x_transformers(options):
    library = pytest.importorskip("x_transformers")
    model = library.TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=library.Decoder(dim=32, depth=2, heads=2, **options)
    ).eval()
    ids = torch.randint(0, 64, (2, 8))
    old = model(ids)
    if "use_simple_rmsnorm" in options:  # no parameters: said, not guessed
        with pytest.raises(ValueError, match="does not say its width; type overrides"):
            convert(model)
    if "use_scalenorm" in options:
        with pytest.raises(ValueError, match="one scale for all channels"):
            convert(model)
        return
    convert(model, overrides={"*": {"dim": 32}} if "use_simple_rmsnorm" in options else None)
    assert sum(isinstance(m, DynamicTanh) for m in model.modules()) == 5
    model.train()(ids).sum().backward()
    assert torch.equal(revert(model).eval()(ids), old)
