"""The checks of `gptoss-mlx doctor`, and what the command makes of them."""
