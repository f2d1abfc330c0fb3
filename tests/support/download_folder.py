"""A models folder, and scripts/download_model.py run on it against a hub of the tests' own."""

import os
import subprocess
import sys
from pathlib import Path

from src.catalog import Catalog
from src.settings import ROOT
from tests.support.hub import Hub


class Folder:
    """A models folder, and a home of its own for what the clients keep there."""

    def __init__(self, path: Path, hub: Hub | None) -> None:
        self.path = path / "models"
        self.path.mkdir()
        self.environ = {**os.environ, **(hub.environ() if hub else {}), "HOME": str(path), "MODELSCOPE_CACHE": str(path / "cache")}
        self.environ |= {"HF_HOME": str(path / "hf"), "NO_PROXY": "*"}

    def start(self, *arguments: str, **options: object) -> subprocess.Popen:
        command = [sys.executable, "scripts/download_model.py", *arguments, "--models-dir", str(self.path)]
        return subprocess.Popen(command, cwd=ROOT, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    def download(self, *arguments: str, **options: object) -> tuple[int, str]:
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=100)
        return process.returncode, out + err

    def models(self) -> dict[str, str | None]:
        return {name: entry.problem for name, entry in Catalog(self.path).scan().items()}

    def files(self, name: str) -> set[str]:
        folder = self.path / name
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
