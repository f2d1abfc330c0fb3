"""HTTP in, HTTP out: OpenAI's routes. Knows no model, tokenizer or engine; runners do the work, over a socket."""
