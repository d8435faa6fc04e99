"""A model of a given shape with random weights, frozen, quantised and adapted as a setup says.

It is built where it will live and in its final precision, so that no wider copy of it ever exists:
an 8B model in 4 bits needs 8 GiB, not 32. The code is that of transformers, PEFT and bitsandbytes;
only the values are random, and memory does not depend on values. The dry run builds its model
here too, with another class for the 4-bit maps.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import PROJECTIONS, ModelShape

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

SPREAD = 0.02  # standard deviation of the random weights


def config_of(shape: ModelShape) -> "PretrainedConfig":
    """The transformers config of a shape."""
    from transformers import CONFIG_MAPPING

    bias: dict[str, Any] = {"attention_bias": shape.attention_bias}
    if shape.architecture == "llama":
        bias["mlp_bias"] = shape.mlp_bias
    if shape.architecture not in ("llama", "qwen3"):
        bias = {}
    return CONFIG_MAPPING[shape.architecture](
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=shape.max_length,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        sliding_window=None,
        bos_token_id=0,
        eos_token_id=0,
        **bias,
    )


def random_linear4bit(layer: nn.Linear, setup: TrainingSetup, device: str) -> nn.Module:
    """A bitsandbytes map of the size of `layer`, its codes packed from random weights."""
    import bitsandbytes as bnb

    dtype = getattr(torch, setup.base_dtype)
    packed = bnb.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=torch.float16 if dtype is torch.float16 else torch.bfloat16,
        compress_statistics=setup.double_quant,
        quant_type="nf4",
        device="meta",
    )
    values = torch.empty(layer.weight.shape, dtype=dtype, device=device).normal_(0, SPREAD)
    packed.weight = bnb.nn.Params4bit(
        values,
        requires_grad=False,
        quant_type="nf4",
        compress_statistics=setup.double_quant,
        module=packed,
    ).to(device)
    if layer.bias is not None:
        packed.bias = nn.Parameter(torch.zeros(layer.out_features, dtype=dtype, device=device))
    return packed


def bare(
    shape: ModelShape,
    setup: TrainingSetup,
    device: str,
    packed: Any = random_linear4bit,  # noqa: ANN401
) -> "PreTrainedModel":
    """The base model before any adapter, its projections in 4 bits where the setup says so."""
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, setup.base_dtype)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config_of(shape), dtype=dtype, attn_implementation=setup.attention
        )
    if setup.quantized:
        for layer in model.model.layers:
            for name in PROJECTIONS:
                parent = layer.mlp if hasattr(layer.mlp, name) else layer.self_attn
                setattr(parent, name, packed(getattr(parent, name), setup, device))
        model.is_loaded_in_4bit = True
        model.quantization_method = "bitsandbytes"
    _off_meta(model, dtype, device)
    return model.train()


def _off_meta(model: "PreTrainedModel", dtype: torch.dtype, device: str) -> None:
    """Random values for every parameter that is left without any, and the rotary angles."""
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if p.is_meta:
                values = torch.empty(p.shape, dtype=dtype, device=device).normal_(0, SPREAD)
                setattr(module, name, nn.Parameter(values))
    model.tie_weights()


def adapt(model: "PreTrainedModel", setup: TrainingSetup) -> nn.Module:
    """Freeze and adapt the model by PEFT, as the setup says; a full fine-tune is left whole."""
    from peft import get_peft_model, prepare_model_for_kbit_training

    kwargs = {"use_reentrant": False}
    if setup.quantized and setup.prepared:
        prepare_model_for_kbit_training(model, setup.checkpointing, kwargs)
    if not setup.adapted:
        return model
    adapted = get_peft_model(model, lora_config(setup))
    if setup.adapter_dtype != "float32":
        for name, p in adapted.named_parameters():
            if p.requires_grad and "lora_magnitude_vector" not in name:
                p.data = p.data.to(getattr(torch, setup.adapter_dtype))
    return adapted


def lora_config(setup: TrainingSetup) -> Any:  # noqa: ANN401
    """PEFT's config of the adapters."""
    from peft import LoraConfig

    return LoraConfig(
        r=setup.rank,
        lora_alpha=2 * setup.rank,
        lora_dropout=setup.dropout,
        target_modules=list(setup.target_names),
        use_dora=setup.magnitudes,
        task_type="CAUSAL_LM",
    )


def checkpointed(model: nn.Module, setup: TrainingSetup) -> None:
    """Keep only the input of each layer, if the setup says so."""
    if setup.checkpointing:
        if setup.adapted:
            model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
