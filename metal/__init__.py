"""The Metal kernels' sources, as package data; gptoss_mlx.kernels.metal launches them."""
