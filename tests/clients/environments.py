"""Where the clients are installed: a virtual environment and a folder of npm packages, made once and kept in ~/.cache.

`python -m tests.clients.environments` makes both. Needs pip's index, and node and npm.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support.programs import program

HERE = Path(__file__).parent
CACHE = Path.home() / ".cache" / "llm-inference-service"


def python() -> Path:
    """The interpreter that has the Python clients."""
    wanted = HERE / "requirements.txt"
    return _made(CACHE / "venvs", "clients", wanted.read_text() + sys.version, _make_venv) / "bin" / "python"


def node_modules() -> Path:
    """The folder that npm installed to."""
    wanted = HERE / "package.json"
    return _made(CACHE / "node", "clients", wanted.read_text() + platform.machine(), _install_packages)


def _made(parent: Path, name: str, key: str, make: Callable[[Path], None]) -> Path:
    folder = parent / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        # A virtual environment cannot be moved: it is made in its place, and only the mark tells that it is whole.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        (folder / "complete").touch()
    return folder


def _make_venv(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / "requirements.txt"]
    subprocess.run(command, check=True, cwd=tempfile.gettempdir())


def _install_packages(folder: Path) -> None:
    shutil.copy(HERE / "package.json", folder)
    subprocess.run([program("npm"), "install", "--no-audit", "--no-fund", "--silent"], check=True, cwd=folder)


if __name__ == "__main__":
    print(python())
    print(node_modules())
