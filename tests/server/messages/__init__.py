"""Tests of gptoss_mlx.server.messages."""
