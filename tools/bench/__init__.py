"""Measures any OpenAI-compatible server: python -m tools.bench."""
