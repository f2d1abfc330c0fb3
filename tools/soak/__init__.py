"""Asks a server for a long time while its processes are killed: python -m tools.soak."""
