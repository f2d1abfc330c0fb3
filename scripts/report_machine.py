"""What a report says of the machine and of what is installed: figures and versions, nothing that a user has written."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = (
    *("flask", "gunicorn", "gevent", "msgspec", "pydantic", "jinja2", "llguidance", "loguru", "psutil", "llama-cpp-python"),
    *("mlx", "mlx-metal", "mlx-lm", "vllm", "torch", "transformers", "tokenizers", "numpy", "huggingface-hub", "modelscope"),
)
SYSCTLS = (
    *("hw.model", "machdep.cpu.brand_string", "hw.memsize", "hw.perflevel0.physicalcpu", "hw.perflevel1.physicalcpu"),
    *("hw.optional.arm64", "iogpu.wired_limit_mb", "kern.ipc.somaxconn", "kern.boottime"),
)


def machine() -> list[str]:
    lines = [f"system       {platform.platform()}", f"processor    {platform.machine()}, {os.cpu_count()} CPUs"]
    if sys.platform == "darwin":
        lines += [f"{name}: {value}" for name in SYSCTLS if (value := answer("/usr/sbin/sysctl", "-n", name))]
        lines += [
            line for line in answer("/usr/bin/vm_stat").splitlines() if re.fullmatch(r'["\w -]+: +\d+\.|.*page size of \d+ bytes.*', line)
        ]
    else:
        lines += [f"chip         {value}" for value in _first(r"^(?:model name|Model)\s*:\s*(.*)$", "/proc/cpuinfo")]
        lines += [f"{name:<12} {value}" for name in ("MemTotal", "MemAvailable") for value in _first(rf"^{name}:\s*(.*)$", "/proc/meminfo")]
    query = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv,noheader")
    lines += [f"GPU          {line}" for line in answer(*query).splitlines()]
    free = shutil.disk_usage(".").free // 2**30
    return [*lines, f"disk         {free} GiB free"]


def versions(root: Path) -> list[str]:
    lines = [
        f"Python      {platform.python_version()} {platform.machine()}, {'.venv' if sys.prefix != sys.base_prefix else 'not of .venv'}"
    ]
    commit = answer("git", "-C", str(root), "rev-parse", "--short=12", "HEAD")
    if re.fullmatch(r"[0-9a-f]{7,40}", commit):
        changed = len(answer("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no").splitlines())
        lines.append(f"source      {commit}{f', {changed} files changed' if changed else ''}")
    for name in PACKAGES:
        try:
            lines.append(f"{name:<20} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return lines


def answer(*command: str) -> str:
    """ "" where there is no such program, or it fails."""
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


def _first(pattern: str, path: str) -> list[str]:
    try:
        found = re.search(pattern, Path(path).read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        return []
    return [found[1].strip()] if found else []
