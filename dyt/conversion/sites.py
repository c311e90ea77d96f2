"""Where a norm stands, by the names that timm, Hugging Face and torch give it: attn, mlp, final, embed, qk ...

alpha starts by site in language models (arXiv 2503.10622, Tables 10 and 11), so the same words as in ``models/``.
"""

import re

from torch import nn

SITES = ("attn", "mlp", "final", "embed", "qk", "stem", "down", "conv", "other")
_QK = r"^(q|k|v|kv|qk|query|key|value)_?(a_|b_)?(layer_?)?(norm|ln)|^(norm|ln)_?(q|k|v|qk|query|key)$"
_EMBED = r"embed|(^|\.)(norm_pre|ln_pre|pre_layer_?norm|pre_layrnorm|ln0|pre_ln)$"
_DOWN = r"down_?sampl|patch_?merg|\.reduction"
_ATTN = r"attn|attention|_sa_|^sa_|norm_?1$|ln_?1$|input_layer_?norm|before|time_?mix|mixer|token"
_MLP = (
    r"mlp|ffn?_|_ffn?|^ffn?$|feed_?forward|norm_?[23]$|ln_?[23]$|after|post_attention|final_layer_?norm|output_layer"
    "|channel"
)
_INSIDE = {  # the classes and names of what the norm stands in or beside
    "attn": r"attn|attention|^sa$|mixer|mamba|rwkv",
    "mlp": r"mlp|ff|feed_?forward|intermediate|^fc\d?$|pwconv|expert|^.*output$",
    "conv": r"conv",
}


def site_of(model: nn.Module, name: str) -> str:
    """The site of `model`'s norm `name`, one of `SITES`."""
    path, _, last = name.lower().rpartition(".")
    parent = model.get_submodule(name.rpartition(".")[0])
    beside = {n.lower() for n, _ in parent.named_children()}
    if re.search(_QK, last):
        return "qk"
    if re.search(_EMBED, name.lower()):
        return "embed"
    if re.search(r"(^|\.)\w*stem", name.lower()):
        return "stem"
    if re.search(_DOWN, name.lower()):
        return "down"
    if not re.search(r"(^|\.)\d+\.", path + "."):
        return "final"
    if last == "norm2" and {"norm3", "multihead_attn"} <= beside:  # torch's decoder layer: beside cross attention
        return "attn"
    if last.startswith("post_attention") and any(re.match("(pre|post)_(feedforward|mlp)", n) for n in beside):
        return "attn"
    if re.search(_MLP, last):
        return "mlp"
    if re.search(_ATTN, last):
        return "attn"
    inside = [type(parent).__name__.lower(), *re.sub(r".*\.\d+(\.|$)", "", path).split(".")]
    for words, sites in ((inside, ("attn", "mlp")), (beside, ("attn", "mlp", "conv")), (inside, ("conv",))):
        for site in sites:
            if any(re.search(_INSIDE[site], word) for word in words):
                return site
    return "other"
