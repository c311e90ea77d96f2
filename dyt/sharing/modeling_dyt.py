"""GPT-2 and LLaMA of transformers with another norm; goes along with weights, for ``trust_remote_code=True``."""

from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from .norm_dyt import norm_layer


class DyTGPT2Config(GPT2Config):
    model_type = "dyt_gpt2"


class DyTLlamaConfig(LlamaConfig):
    model_type = "dyt_llama"


class WithNorms:
    """Puts config.json's ``norm`` in every norm's place."""

    def __init__(self, config):
        super().__init__(config)
        make = norm_layer(**config.norm)
        for name, module in list(self.named_modules()):
            if isinstance(module, nn.LayerNorm | LlamaRMSNorm):
                parent, _, child = name.rpartition(".")
                setattr(self.get_submodule(parent), child, make(module.weight.shape[0]))
        self.post_init()


class DyTGPT2Model(WithNorms, GPT2Model):
    config_class = DyTGPT2Config


class DyTGPT2LMHeadModel(WithNorms, GPT2LMHeadModel):
    config_class = DyTGPT2Config


class DyTLlamaModel(WithNorms, LlamaModel):
    config_class = DyTLlamaConfig


class DyTLlamaForCausalLM(WithNorms, LlamaForCausalLM):
    config_class = DyTLlamaConfig
