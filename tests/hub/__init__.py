"""Tests of gptoss_mlx.hub, and a server that stands for the Hub."""
