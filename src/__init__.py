"""One OpenAI-compatible server in front of MLX, vLLM and llama.cpp. Knows nothing itself; see docs/ARCHITECTURE.md."""
