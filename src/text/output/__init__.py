"""From a token's bytes to text in channels: decoding, stop strings, reasoning and content, tool calls."""
