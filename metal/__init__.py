"""The Metal kernels' sources. None yet: the model runs on MLX's own kernels."""
