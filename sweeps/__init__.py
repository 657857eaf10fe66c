"""Grids of runs: W&B's sweep files without a server, and chains of stages."""
