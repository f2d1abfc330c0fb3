"""The memory of a Mac's GPU, which is the machine's: how much Metal lets programs use, how much is free. Knows no models."""

import functools
import re
import subprocess
import sys

from src import ROOT

SECONDS = 30  # that the process which asks Metal may take: it imports MLX


@functools.cache
def working_set() -> int:
    """Bytes that Metal recommends to use at most, of all programs together; 0 where it cannot be asked.

    It is no fixed part of the memory, and iogpu.wired_limit_mb changes it. Asked in a process that ends: whoever has opened the GPU
    keeps some of it.
    """
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "src.engines.working_set"], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=True
        ).stdout
        return int(answer)
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def free_bytes(total: int) -> int | None:
    """What neither programs nor the kernel hold; files in its cache are free. None where vm_stat does not tell.

    psutil's `available` counts pages of files that were read lately as used, such as those of a model that was just downloaded.
    """
    try:
        text = subprocess.run(["/usr/bin/vm_stat"], capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_vm_stat(text, total)


def parse_vm_stat(text: str, total: int) -> int | None:
    size = re.search(r"page size of (\d+) bytes", text)
    pages = {name.strip(' "'): int(count) for name, count in re.findall(r"^(.+?):\s+(\d+)\.$", text, re.MULTILINE)}
    try:
        used = pages["Pages wired down"] + pages["Anonymous pages"] - pages["Pages purgeable"] + pages["Pages occupied by compressor"]
    except KeyError:
        return None
    return total - used * int(size[1]) if size else None
