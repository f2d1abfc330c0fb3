"""One process per loaded model: the engine, the tokenizer and all text work. Knows nothing of HTTP."""
