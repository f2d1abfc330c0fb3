"""Text to tokens and back, by GGUF metadata or by a Hugging Face folder."""
