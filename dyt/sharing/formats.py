"""A trained model as other libraries' files: weights and config.json for timm or Hugging Face's transformers.

Nothing of theirs is imported: the names below are theirs, and the tests load the files with their own classes.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from dyt.norms.dynamic import Derf, DynamicTanh

HERE = Path(__file__).parent


def describe(norm: nn.Module) -> dict:
    """The kind and settings of one norm, as `norm_dyt.norm_layer` takes them.

    Raises:
        ValueError: a norm that the exported code does not have.
    """
    if isinstance(norm, DynamicTanh):
        told = {"kind": "dyt", "squash": norm.squash, "shift": isinstance(norm, Derf)}
        alpha = norm.slope()
        told |= {"by_channel": alpha is not None and alpha.numel() > 1}
        return told | {"affine": norm.weight is not None, "bias": norm.bias is not None}
    if type(norm) is nn.LayerNorm:
        told = {"kind": "layernorm", "eps": norm.eps, "elementwise_affine": norm.weight is not None}
        return told | {"bias": norm.bias is not None}
    if type(norm) is nn.RMSNorm:
        return {"kind": "rmsnorm", "eps": norm.eps, "elementwise_affine": norm.weight is not None}
    if type(norm) is nn.Identity:
        return {"kind": "none"}
    raise ValueError(f"a norm of class {type(norm).__name__} has no place there; type format=pt")


def one_norm(made: list[tuple[str, nn.Module]], to: str) -> dict:
    """The one description that all norms of a model share.

    Raises:
        ValueError: they differ by site.
    """
    told = [(site, describe(norm)) for site, norm in made]
    for site, other in told[1:]:
        if other != told[0][1]:
            key = next(k for k in other if other.get(k) != told[0][1].get(k))
            raise ValueError(f"format={to}: norm.sites.{site} differs from {told[0][0]} in {key}; type format=pt")
    return told[0][1] if told else {"kind": "none"}


def values(norm: nn.Module) -> dict[str, Tensor]:
    """A norm's weights under the names of `norm_dyt`; alpha as it acts, however it was learned."""
    own = {name: p.detach() for name, p in norm.named_parameters(recurse=False) if name in ("weight", "bias", "shift")}
    if isinstance(norm, DynamicTanh):
        slope = norm.slope()
        own["alpha"] = torch.ones(1) if slope is None else slope.detach()
    return own


def as_timm(model: nn.Module, made, config: dict, spec: dict) -> tuple[dict, dict, dict | None]:
    """(weights, config.json, norm settings or None where timm's own norm is it) of a ViT.

    Raises:
        ValueError: not a ViT, or one with what timm's classes do not have; the line names it.
    """
    about = config["model"]
    if about["family"] != "vit" or not hasattr(model, "patch_embed"):
        raise ValueError(f"format=timm: model={about['name']} is not a ViT; type format=pt")
    _no_method(about, "timm")
    if about.get("frozen"):
        raise ValueError("format=timm: model.frozen=true has a BatchNorm before its head; type format=pt")
    norm = one_norm(made, "timm")
    norms = {name: m for name, m in model.named_modules() if any(m is n for _, n in made)}
    weights = {k: v for k, v in model.state_dict().items() if k.rpartition(".")[0] not in norms}
    weights |= {f"{name}.{key}": v for name, m in norms.items() for key, v in values(m).items()}
    arguments = {"img_size": about["img_size"], "patch_size": about["patch_size"], "embed_dim": about["dim"]}
    arguments |= {
        "depth": about["depth"],
        "num_heads": about["heads"],
        "in_chans": spec["channels"],
        "global_pool": "avg",
    }
    arguments |= {"qk_norm": True} if about.get("qk_norm") else {}
    size = list(model.patch_embed.img_size)
    shown = {"num_classes": model.num_classes, "input_size": [spec["channels"], *size], "fixed_input_size": True}
    shown |= {"first_conv": "patch_embed.proj", "classifier": "head"}
    # How an evaluation prepares a picture, which timm's create_transform takes from here, or else ImageNet's way.
    shown |= {key: config["data"][key] for key in ("mean", "std", "crop_pct", "interpolation")}
    told = {"architecture": about["timm_name"], "num_classes": model.num_classes, "global_pool": "avg"}
    told |= {"model_args": {k: v for k, v in arguments.items() if v is not None}, "pretrained_cfg": shown}
    usual = {"kind": "layernorm", "eps": 1e-6, "elementwise_affine": True, "bias": True}
    return weights, told, None if norm == usual else norm


def as_hf(model: nn.Module, made, config: dict) -> tuple[dict, dict]:
    """(weights, config.json) of a GPT, as GPT-2 or LLaMA by its positions and MLP.

    A learnable scalar after the embedding is multiplied into it; a head tied to the embedding then becomes its own.

    Raises:
        ValueError: a combination that neither has; the line names it.
    """
    about = config["model"]
    if about["family"] != "gpt":
        raise ValueError(f"format=hf: model={about['name']} is no GPT; type format=timm for a ViT, else format=pt")
    _no_method(about, "hf")
    rope, gated, block = model.positions is None, model.blocks[0].mlp.gated, model.blocks[0]
    if rope != gated:
        has = f"model.positions={about['positions']} with model.mlp={about['mlp']}"
        raise ValueError(
            f"format=hf: {has} is neither GPT-2's (learned, gelu) nor LLaMA's (rope, swiglu); type format=pt"
        )
    if about.get("qk_norm"):
        raise ValueError(
            "format=hf: model.qk_norm=true: GPT-2 and LLaMA have no norm of queries and keys; type format=pt"
        )
    if not rope and block.attn.kv_heads != block.attn.heads:
        raise ValueError(f"format=hf: model.kv_heads={block.attn.kv_heads}: GPT-2 has none of its own; type format=pt")
    norm = one_norm(made, "hf")
    own = norm["kind"] == ("rmsnorm" if rope else "layernorm") and norm["elementwise_affine"]
    scale = 1.0 if model.embed_scale is None else model.embed_scale.detach()
    tied = model.head.weight is model.embed.weight and model.embed_scale is None
    told = {"vocab_size": model.embed.num_embeddings, "tie_word_embeddings": tied, "dtype": "float32"}
    told |= {"bos_token_id": None, "eos_token_id": None}
    kind = "llama" if rope else "gpt2"
    classes = {"AutoModel": "LlamaModel", "AutoModelForCausalLM": "LlamaForCausalLM"}
    if not rope:
        classes = {"AutoModel": "GPT2Model", "AutoModelForCausalLM": "GPT2LMHeadModel"}
    told |= {"model_type": kind, "architectures": [classes["AutoModelForCausalLM"]]}
    if not own:
        told |= {"model_type": f"dyt_{kind}", "architectures": [f"DyT{classes['AutoModelForCausalLM']}"], "norm": norm}
        mine = {name: f"modeling_dyt.DyT{of}" for name, of in classes.items()}
        told["auto_map"] = {"AutoConfig": f"modeling_dyt.DyT{'Llama' if rope else 'GPT2'}Config", **mine}
    weights, more = (_llama if rope else _gpt2)(model, about, scale, norm, own)
    if not tied:
        weights["lm_head.weight"] = model.head.weight.detach()
    return weights, told | more


def _no_method(about: dict, to: str) -> None:
    if about.get("method"):
        raise ValueError(f"format={to}: model.method={about['method']} changes the blocks; type format=pt")


def _gpt2(model, about: dict, scale, norm: dict, own: bool) -> tuple[dict, dict]:
    out = {"transformer.wte.weight": model.embed.weight.detach() * scale}
    out["transformer.wpe.weight"] = model.positions.weight.detach() * scale

    def linear(name: str, layer: nn.Linear) -> None:
        out[f"{name}.weight"] = layer.weight.detach().T  # its Conv1D is (in, out)
        out[f"{name}.bias"] = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach()

    def put(name: str, layer: nn.Module) -> None:
        found = values(layer)
        if own:  # torch's LayerNorm with a bias
            found.setdefault("bias", torch.zeros_like(found["weight"]))
        out.update({f"{name}.{key}": value for key, value in found.items()})

    for i, block in enumerate(model.blocks):
        at = f"transformer.h.{i}"
        put(f"{at}.ln_1", block.attn_norm)
        put(f"{at}.ln_2", block.mlp_norm)
        linear(f"{at}.attn.c_attn", block.attn.qkv)
        linear(f"{at}.attn.c_proj", block.attn.out)
        linear(f"{at}.mlp.c_fc", block.mlp.up)
        linear(f"{at}.mlp.c_proj", block.mlp.down)
    put("transformer.ln_f", model.final_norm)
    drop = about["dropout"]
    told = {"n_embd": model.embed.embedding_dim, "n_layer": len(model.blocks), "n_head": model.blocks[0].attn.heads}
    told |= {"n_positions": model.context, "n_inner": model.blocks[0].mlp.up.out_features}
    told |= {"activation_function": "gelu", "resid_pdrop": drop, "embd_pdrop": drop, "attn_pdrop": drop}
    return out, told | {"layer_norm_epsilon": norm.get("eps", 1e-5)}


def _llama(model, about: dict, scale, norm: dict, own: bool) -> tuple[dict, dict]:
    out = {"model.embed_tokens.weight": model.embed.weight.detach() * scale}
    first = model.blocks[0]

    def linear(names: list[str], layer: nn.Linear, sizes: list[int]) -> None:
        for key, p in layer.named_parameters():
            for name, piece in zip(names, p.detach().split(sizes), strict=True):
                out[f"{name}.{key}"] = piece

    def put(name: str, layer: nn.Module) -> None:
        out.update({f"{name}.{key}": value for key, value in values(layer).items()})

    attn, hidden = first.attn, first.mlp.down.in_features
    for i, block in enumerate(model.blocks):
        at = f"model.layers.{i}"
        put(f"{at}.input_layernorm", block.attn_norm)
        put(f"{at}.post_attention_layernorm", block.mlp_norm)
        sizes = [attn.heads * attn.head_dim, *[attn.kv_heads * attn.head_dim] * 2]
        linear([f"{at}.self_attn.{k}_proj" for k in "qkv"], block.attn.qkv, sizes)
        linear([f"{at}.self_attn.o_proj"], block.attn.out, [attn.out.out_features])
        linear([f"{at}.mlp.{k}_proj" for k in ("gate", "up")], block.mlp.up, [hidden, hidden])
        linear([f"{at}.mlp.down_proj"], block.mlp.down, [first.mlp.down.out_features])
    put("model.norm", model.final_norm)
    told = {"hidden_size": model.embed.embedding_dim, "num_hidden_layers": len(model.blocks), "hidden_act": "silu"}
    told |= {"num_attention_heads": attn.heads, "num_key_value_heads": attn.kv_heads, "head_dim": attn.head_dim}
    told |= {"intermediate_size": hidden, "max_position_embeddings": model.context, "rope_theta": 10000.0}
    told |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    told |= {"attention_bias": attn.out.bias is not None, "mlp_bias": first.mlp.down.bias is not None}
    return out, told | {"attention_dropout": about["dropout"], "rms_norm_eps": norm.get("eps", 1e-5)}


def load_pt(folder: Path) -> list[str]:
    """Three lines of Python that load the folder; so of the next two."""
    return ["from dyt.sharing import load", "", f"model = load({str(folder)!r})"]


def load_timm(folder: Path, norm: dict | None) -> list[str]:
    if norm is None:
        return ["import timm", "", f"model = timm.create_model({f'local-dir:{folder}'!r}, pretrained=True).eval()"]
    lines = ["import timm, sys", f"sys.path.insert(0, {str(folder)!r})", "from norm_dyt import norm_layer"]
    settings = ", ".join(f"{key}={value!r}" for key, value in norm.items())
    made = f"timm.create_model({f'local-dir:{folder}'!r}, pretrained=True, norm_layer=norm_layer({settings})).eval()"
    return [*lines, f"model = {made}"]


def load_hf(folder: Path, told: dict) -> list[str]:
    trust = ", trust_remote_code=True" if "auto_map" in told else ""
    first = "from transformers import AutoModelForCausalLM"
    return [first, "", f"model = AutoModelForCausalLM.from_pretrained({str(folder)!r}{trust})"]


def code(to: str, norm: dict | None, told: dict | None) -> list[str]:
    """Files of this room that go along, for a norm that the library does not have."""
    if to == "hf" and "auto_map" in told:
        return ["modeling_dyt.py", "norm_dyt.py"]
    return ["norm_dyt.py"] if to == "timm" and norm is not None else []


def limits(to: str, config: dict, model: nn.Module) -> list[str]:
    """What an exported folder does not support, in sentences."""
    about = config["model"]
    found = [
        "Weights only: no optimizer state. Training goes on from a run directory, or from here with a new optimizer."
    ]
    if config["model"]["task"] == "text":
        found.append(f"Contexts beyond {about['context']} tokens.")
        kind = config["data"].get("tokenizer")
        found.append(
            f"Other tokens: ids are those of the {kind} tokenizer described in "
            + ("tokenizer.json." if to == "pt" else "tokenizer_dyt.json, which AutoTokenizer cannot read.")
        )
    elif config["model"]["task"] in ("bases", "sequence"):
        found.append(f"Sequences of more than {about['context']} bases; ids are 0 to 5, for A, C, G, T, N and a mask.")
    elif config["model"]["task"] == "diffusion":
        found.append("Sampling: forward(x, t, y) gives the noise; dyt/tasks/diffusion.py has the sampler.")
    elif config["model"]["task"] == "decision":
        found.append("Other environments: states are normalised as its data's; dyt/tasks/decision.py plays episodes.")
    else:
        found.append(
            "Labels or pictures other than those of its data; pixels are prepared as the recipe's data part says."
        )
    if to == "hf" and model.embed_scale is not None:
        found.append(
            "The learned scalar after the embedding as such: it is multiplied in, and the head is not tied to it."
        )
    if to == "hf" and model.positions is None and about["dropout"]:
        found.append("Dropout after attention and MLP in further training: LLaMA has it in attention alone.")
    learns = {m.learns for m in model.modules() if isinstance(m, DynamicTanh)} - {"learned"}
    if to != "pt" and learns:
        found.append(f"norm.alpha={', '.join(sorted(learns))} in further training: alpha is a plain parameter here.")
    return found
