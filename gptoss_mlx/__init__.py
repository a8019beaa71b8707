"""gptoss-mlx: OpenAI's gpt-oss models on Apple's MLX."""
