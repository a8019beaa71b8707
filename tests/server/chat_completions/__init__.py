"""Tests of gptoss_mlx.server.chat_completions."""
