"""What the machine can do at most, by llama-batched-bench: llama.cpp alone, without a server, all prompts at once. Knows no HTTP."""

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec

PROMPT, NEW, SEQUENCES = 40, 64, 20  # as in the workload `distinct`
CONTEXT = 4096  # tokens of one sequence, as the engine has them by default
WORKLOAD = "distinct"


class LimitFailed(Exception):
    """llama-batched-bench gave no figures."""


class Limit(msgspec.Struct, kw_only=True):
    """One run. `raw` is the program's own line."""

    command: list[str]
    environment: dict[str, str]  # what places its threads
    raw: dict[str, Any]

    @property
    def requests_per_second(self) -> float:
        return float(self.raw["pl"] / self.raw["t"])

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens alone, as for the servers."""
        return float(self.raw["pl"] * self.raw["tg"] / self.raw["t"])


async def measure(program: Path, model: Path, threads: int) -> Limit:
    """Prompts that share nothing, a KV stream per sequence, flash attention as llama.cpp chooses. Raises LimitFailed."""
    command = [str(program), "-m", str(model), "-npp", str(PROMPT), "-ntg", str(NEW), "-npl", str(SEQUENCES)]
    command += ["-c", str(CONTEXT * SEQUENCES), "-no-kvu", "-b", "512", "-ub", "512", "-fa", "auto"]
    command += ["-t", str(threads), "-tb", str(threads), "--output-format", "jsonl"]
    try:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    except OSError as error:
        raise LimitFailed(f"{program} cannot be run: {error.strerror}. Give --limit the path of llama-batched-bench.") from error
    output, _ = await process.communicate()
    for line in output.splitlines():
        if line.lstrip().startswith(b'{"n_kv_max"'):
            placing = {name: value for name, value in os.environ.items() if name.startswith(("OMP_", "GOMP_"))}
            return Limit(command=command, environment=placing, raw=msgspec.json.decode(line))
    ending = output.decode(errors="replace").strip()[-500:]
    raise LimitFailed(f"{program} ended with {process.returncode} and no figures. It said: {ending}")
