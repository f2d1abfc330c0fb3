"""One OpenAI-compatible server in front of MLX, vLLM and llama.cpp; docs/ARCHITECTURE.md shows its rooms."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of the installation: relative paths of settings, and the folder its processes run in
