"""Tests of gptoss_mlx.grammar, one module each, and what they share."""
