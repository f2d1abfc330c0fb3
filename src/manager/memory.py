"""What fits: how much memory a model will take, how much there is, what to propose where it is too little.

The one place that plans memory. Engines get the numbers that come out of it, and refuse only what they alone can see: what a
GPU's driver leaves free, or MLX_MEMORY_FRACTION of it.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from src.catalog import Facts
from src.engines.base import Footprint
from src.errors import ModelDoesNotFit
from src.manager import metal
from src.manager.footprint import disk_bytes, physical_bytes

DEFAULT_CONTEXT = 4096  # tokens, where the setting leaves it open; what models were trained for may take more than there is
DEFAULT_SEQUENCES = 20
LEAST_CONTEXT = 512  # an open context is made no shorter to fit
KV_SHARE = 0.2  # of the free memory, for as many sequences as the setting leaves open
BATCH_TOKENS = 512  # the most that an engine computes in one step on a CPU
GIB = 2**30
Q8_0 = 34 / 64  # of f16's size. What the engine chooses by itself may be smaller than f16 too, but does not have to be

# By the token of the vocabulary, which the engine and the tokenizer both hold. Measured with llama.cpp on a CPU, models of 49
# thousand and 262 thousand tokens.
TOKEN_BYTES = 1024
ONE_PROCESS = Footprint()


class Need(NamedTuple):
    """Bytes by part."""

    weights: int
    kv_cache: int
    overhead: int  # interpreter, libraries, vocabulary, buffers of one step

    @property
    def total(self) -> int:
        return sum(self)


class Memory(NamedTuple):
    """Of the device that an engine uses, in bytes."""

    kind: str  # ram, cuda, unified
    total: int
    free: int  # less the reserve
    reserve: int


class Fit(NamedTuple):
    context_length: int
    sequences: int
    need: Need


def need(facts: Facts, context_length: int, sequences: int, footprint: Footprint = ONE_PROCESS) -> Need:
    """What a model takes with so many sequences of so many tokens, in each copy that the engine's footprint has."""
    activations = BATCH_TOKENS * 4 * (16 * facts.embedding_length + 4 * facts.feed_forward_length)
    logits = sequences * facts.vocabulary * 8
    return Need(
        weights=footprint.copies * facts.weight_bytes,
        kv_cache=footprint.copies * sequences * (context_length * facts.kv_bytes_per_token + facts.state_bytes),
        overhead=footprint.process_bytes + facts.vocabulary * TOKEN_BYTES + activations + logits,
    )


def fit(name: str, facts: Facts, memory: Memory, context_length: int, sequences: int, footprint: Footprint = ONE_PROCESS) -> Fit:
    """Settings as they are, open ones (0) as large as there is room. Raises ModelDoesNotFit with numbers and what would fit."""
    trained = facts.context_length or context_length or DEFAULT_CONTEXT
    longest = min(trained, context_length or DEFAULT_CONTEXT)
    wanted = sequences or _share(facts, memory, longest, footprint.copies)
    fitting = longest
    while not context_length and fitting > LEAST_CONTEXT and need(facts, fitting, sequences or 1, footprint).total > memory.free:
        fitting = max(LEAST_CONTEXT, fitting // 2)
    while not sequences and wanted > 1 and need(facts, fitting, wanted, footprint).total > memory.free:
        wanted -= 1
    planned = Fit(fitting, wanted, need(facts, fitting, wanted, footprint))
    if planned.need.total > memory.free:
        raise ModelDoesNotFit(_explain(name, facts, memory, planned, footprint))
    return planned


def _share(facts: Facts, memory: Memory, context_length: int, copies: int) -> int:
    per_sequence = copies * (context_length * facts.kv_bytes_per_token + facts.state_bytes)
    return max(1, min(DEFAULT_SEQUENCES, int(memory.free * KV_SHARE) // per_sequence if per_sequence else DEFAULT_SEQUENCES))


def _explain(name: str, facts: Facts, memory: Memory, asked: Fit, footprint: Footprint) -> str:
    parts = asked.need
    text = (
        f"{name} needs {_gib(parts.total)} GiB (weights {_gib(parts.weights)}, KV cache {_gib(parts.kv_cache)} for {asked.sequences} "
        f"× {asked.context_length} tokens, overhead {_gib(parts.overhead)}), but {_gib(max(memory.free, 0))} GiB are free beside the "
        f"reserve of {_gib(memory.reserve)} (MEMORY_RESERVE)."
    )
    if fewer := _most(lambda count: need(facts, asked.context_length, count, footprint).total <= memory.free, asked.sequences):
        return f"{text} MAX_PARALLEL_SEQUENCES={fewer} would fit."
    if shorter := _most(lambda length: need(facts, length, 1, footprint).total <= memory.free, asked.context_length):
        return f"{text} CONTEXT_LENGTH={shorter} with MAX_PARALLEL_SEQUENCES=1 would fit."
    return f"{text} Not even one short sequence would fit: use a smaller model or quantisation, or free memory."


def _most(fits: Callable[[int], bool], below: int) -> int:
    """The largest number from 1 to `below` that fits; 0 where none does."""
    least, most = 0, below
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least


def _gib(count: int) -> str:
    return f"{count / GIB:.1f}" if count >= GIB / 10 else f"{count / GIB:.2f}"


class Taken(NamedTuple):
    """By our own models."""

    runners: Collection[int] = ()  # process ids
    promised: int = 0  # bytes that those which are loading will still take
    expected: int = 0  # bytes of all of them as they were planned, those which are loading among them


NOTHING = Taken()


def available(device: str, reserve: int, taken: Taken = NOTHING, working_set_share: float = 1.0) -> Memory:
    """The memory there is now for one more model. `working_set_share`: what the engine uses of what Metal recommends."""
    if device == "cuda":
        total, free = _cuda()
        return Memory("cuda", total, free - reserve - taken.promised, reserve)
    if device == "mps":
        return _unified(reserve, taken, working_set_share)
    system = psutil.virtual_memory()
    total, free = system.total, system.available
    if limit := cgroup_limit():
        total, free = min(total, limit[0]), min(free, limit[0] - limit[1])
    # Weights are mapped files: the kernel counts their pages as available while our runners need them.
    mapped = sum(mapped_bytes(pid) for pid in taken.runners)
    return Memory("ram", total, free - mapped - reserve - taken.promised, reserve)


def _unified(reserve: int, taken: Taken, share: float) -> Memory:
    system = psutil.virtual_memory()
    free = metal.free_bytes(system.total)
    return unified(system.total, system.available if free is None else free, metal.working_set(), reserve, taken, share)


def unified(total: int, free: int, working_set: int, reserve: int, taken: Taken = NOTHING, share: float = 1.0) -> Memory:
    """A Mac's, by what models are expected to take: what the GPU holds is in no process's resident size, and Metal bounds all together.
    `working_set`: 0 where Metal cannot be asked."""
    free -= reserve
    if working_set:
        return Memory("unified", total, min(free, int(working_set * share) - taken.expected), reserve)
    return Memory("unified", total, free - taken.promised, reserve)


def mapped_bytes(pid: int) -> int:
    """Pages of files that a process and its children have in memory. 0 where the system does not tell, which also does not
    count them as free."""
    return sum(getattr(use, "shared", 0) for use in _uses(pid))


def read_bytes(pid: int) -> int:
    """About how much of its model's files a runner that loads has read. 0 where the system does not tell."""
    read = disk_bytes(pid)
    return mapped_bytes(pid) if read is None else read


def private_bytes(pid: int) -> int:
    """What only this process and its children hold: what they return when they end, beside mapped files. 0 where it is gone."""
    if (footprint := physical_bytes(pid)) is not None:
        return footprint
    return sum(use.rss - getattr(use, "shared", 0) for use in _uses(pid))


def _uses(pid: int) -> Iterator[Any]:
    """Memory of a process and, where its engine has some (vLLM), of its children."""
    try:
        process = psutil.Process(pid)
        # Of no engine that a Mac has, and there each look would go through all processes of the machine.
        children = [] if sys.platform == "darwin" else process.children(recursive=True)
        family = [process, *children]
    except psutil.Error:
        return
    for member in family:
        with contextlib.suppress(psutil.Error):
            yield member.memory_info()


def cgroup_limit(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> tuple[int, int] | None:
    """(limit, used) in bytes of the tightest control group that this process is in; None without one. Reclaimable files
    do not count as used. Version 2 only: a container of version 1 sees the machine's memory."""
    try:
        group = next(line.split("::", 1)[1].strip() for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    tightest = None
    for folder in (root / group.lstrip("/"), *(root / group.lstrip("/")).parents):
        try:
            limit, used = int((folder / "memory.max").read_text()), int((folder / "memory.current").read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # "max", the top group, or version 1
            limit = None
        if limit is not None and (tightest is None or limit < tightest[0]):
            tightest = (limit, used - int(stat.get("inactive_file", 0)) - int(stat.get("active_file", 0)))
        if folder == root:
            break
    return tightest


def _cuda() -> tuple[int, int]:
    """(total, free) bytes of the first GPU by nvidia-smi; (0, 0) where it does not answer."""
    query = ["nvidia-smi", "--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits", "--id=0"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        total, free = (int(number) * 2**20 for number in answer.split(","))
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0, 0
    return total, free


def oom_kills() -> int:
    """Processes that this machine's kernel has killed for want of memory; 0 where it does not tell (Linux does)."""
    try:
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(counts.get("oom_kill", 0))
    except OSError:
        return 0
