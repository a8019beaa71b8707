"""Tests of gptoss_mlx.server.responses."""
