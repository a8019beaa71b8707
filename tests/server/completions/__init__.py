"""Tests of gptoss_mlx.server.completions."""
