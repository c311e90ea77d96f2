"""GPT-2 and LLaMA of transformers with another norm; goes along with weights, for ``trust_remote_code=True``."""

from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from .norm_dyt import norm_layer


class DyTGPT2Config(GPT2Config):
    model_type = "dyt_gpt2"


class DyTLlamaConfig(LlamaConfig):
    model_type = "dyt_llama"


def with_norms(model, config):
    """Puts config.json's ``norm`` in every norm's place."""
    make = norm_layer(**config.norm)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.LayerNorm | LlamaRMSNorm):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, make(module.weight.shape[0]))


class DyTGPT2Model(GPT2Model):
    config_class = DyTGPT2Config

    def __init__(self, config):
        super().__init__(config)
        with_norms(self, config)
        self.post_init()


class DyTGPT2LMHeadModel(GPT2LMHeadModel):
    config_class = DyTGPT2Config

    def __init__(self, config):
        super().__init__(config)
        with_norms(self, config)
        self.post_init()


class DyTLlamaModel(LlamaModel):
    config_class = DyTLlamaConfig

    def __init__(self, config):
        super().__init__(config)
        with_norms(self, config)
        self.post_init()


class DyTLlamaForCausalLM(LlamaForCausalLM):
    config_class = DyTLlamaConfig

    def __init__(self, config):
        super().__init__(config)
        with_norms(self, config)
        self.post_init()
