"""Tests of gptoss_mlx/tools."""
