"""The numbers of the two models that OpenAI published, as their config.json has them.

It holds no weights, and does not know where they are to be had.
"""

from __future__ import annotations

from gptoss_mlx.config import ModelConfig

__all__ = ["GPT_OSS_20B", "GPT_OSS_120B"]

GPT_OSS_20B = ModelConfig(
    num_hidden_layers=24,
    num_experts=32,
    experts_per_token=4,
    vocab_size=201_088,
    hidden_size=2880,
    intermediate_size=2880,
    swiglu_limit=7.0,
    head_dim=64,
    num_attention_heads=64,
    num_key_value_heads=8,
    sliding_window=128,
    initial_context_length=4096,
    rope_theta=150_000.0,
    rope_scaling_factor=32.0,
    rope_ntk_alpha=1.0,
    rope_ntk_beta=32.0,
)
GPT_OSS_120B = ModelConfig(
    **{**GPT_OSS_20B.to_openai_dict(), "num_hidden_layers": 36, "num_experts": 128}
)
