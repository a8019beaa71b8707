"""Tests of gptoss_mlx/terminal."""
