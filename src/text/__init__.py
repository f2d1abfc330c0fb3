"""Characters to tokens and back. Knows nothing of engines, sockets or HTTP."""
