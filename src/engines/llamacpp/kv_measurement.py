"""Which storage of the KV cache is the quickest on this CPU for a model's attention: measured, not known by the CPU's name.

`python -m src.engines.llamacpp.kv_measurement REQUEST` measures: llama.cpp ends its process where it meets a shape that it cannot
compute, and a model's file says any.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as ll
import msgspec

from src.engines import measurements
from src.engines.llamacpp.kv_types import KV_TYPES, KVTypes
from src.engines.llamacpp.one_layer import AttentionShape, one_layer_gguf

# Tokens of a request as it is on average in conversations with a chat model: ShareGPT's, in https://arxiv.org/abs/2309.06180, figure 11.
PROMPT_TOKENS, NEW_TOKENS = 161, 338
MIDDLE = PROMPT_TOKENS + NEW_TOKENS // 2  # of the context that such a request decodes with
ROUNDS, TRIES = 5, 3
SPREAD = 0.1  # between rounds, above which they are measured again
SECONDS = 3.0  # after which the rounds that are there have to do
DECODING_STEPS = 4
PROCESS_SECONDS = 30  # for a machine that is busy with something else


class Timing(msgspec.Struct, frozen=True):
    """Seconds a token of one layer."""

    prefill: float
    decode: float  # with as many sequences as the model is served with

    @property
    def request(self) -> float:
        return PROMPT_TOKENS * self.prefill + NEW_TOKENS * self.decode


Timings = dict[str, Timing]


class Request(msgspec.Struct, frozen=True):
    types: tuple[str, ...]  # of KV_TYPES
    shape: AttentionShape
    sequences: int
    threads: int


def fastest(timings: Mapping[str, Timing]) -> str:
    return min(timings, key=lambda name: timings[name].request)


def measured(folder: Path, request: Request) -> Timings | None:
    """As kept in the folder or measured now, which takes a second or two. None where that cannot be done."""
    key: measurements.Key = {
        "request": msgspec.json.encode(request).decode(),
        "library": version("llama-cpp-python"),
        "processor": measurements.processor(),
    }
    found = measurements.kept(folder, key, Timings)
    if found is None or found.keys() != set(request.types):
        found = _measure_apart(request)
        if found:
            found = measurements.keep(folder, key, found, Timings)
    return found


def _measure_apart(request: Request) -> Timings | None:
    """In a process of its own."""
    command = [sys.executable, "-m", __name__, msgspec.json.encode(request).decode()]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROCESS_SECONDS, stdin=subprocess.DEVNULL, check=True)
        return msgspec.json.decode(done.stdout, type=Timings)
    except (subprocess.SubprocessError, OSError, msgspec.DecodeError):
        return None


def _measure(request: Request) -> Timings:
    params = ll.llama_model_default_params()
    params.n_gpu_layers = 0
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(one_layer_gguf(request.shape))
        file.flush()
        model = ll.llama_model_load_from_file(file.name.encode(), params)
    assert model
    return _medians({name: _Probe(model, KV_TYPES[name], request.sequences, request.threads) for name in request.types})


def _medians(probes: Mapping[str, "_Probe"]) -> Timings:
    """In turn, so that what else the machine does meanwhile falls on all; anew while the rounds differ much."""
    for probe in probes.values():
        probe.time()  # the first time, memory is new
    give_up = time.monotonic() + SECONDS
    for _ in range(TRIES):
        rounds: list[Timings] = []
        while len(rounds) < ROUNDS and not (rounds and time.monotonic() > give_up):
            rounds.append({name: probe.time() for name, probe in probes.items()})
        of_each = {name: [timings[name] for timings in rounds] for name in probes}
        if time.monotonic() > give_up or all(_spread([each.request for each in timings]) < SPREAD for timings in of_each.values()):
            break
    return {
        name: Timing(statistics.median(each.prefill for each in timings), statistics.median(each.decode for each in timings))
        for name, timings in of_each.items()
    }


def _spread(values: list[float]) -> float:
    """Of the middle three of five, relative to their median: one disturbed round at either end does not move a median."""
    ordered = sorted(values)[1:-1]
    return (ordered[-1] - ordered[0]) / statistics.median(ordered)


class _Probe:
    """A context whose sequences have all the same prompt, computed once."""

    def __init__(self, model: Any, types: KVTypes, sequences: int, threads: int) -> None:
        params = ll.llama_context_default_params()
        params.n_ctx = sequences * 512
        params.n_seq_max = sequences
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = False
        params.type_k, params.type_v = types.keys, types.values
        params.no_perf = True
        self._context = ll.llama_init_from_model(model, params)
        assert self._context
        self._sequences = sequences
        self._batch = ll.llama_batch_init(params.n_batch, 0, 1)

    def time(self) -> Timing:
        memory = ll.llama_get_memory(self._context)
        ll.llama_memory_clear(memory, True)
        prefill = self._compute([(position, 0) for position in range(MIDDLE)]) / MIDDLE
        for sequence in range(1, self._sequences):
            ll.llama_memory_seq_cp(memory, 0, sequence, -1, -1)
        steps = [
            self._compute([(MIDDLE + step, sequence) for sequence in range(self._sequences)]) / self._sequences
            for step in range(DECODING_STEPS + 1)  # the first one copies the prompt
        ]
        return Timing(prefill, statistics.median(steps[1:]))

    def _compute(self, tokens: list[tuple[int, int]]) -> float:
        """Seconds for one token at each of these (position, sequence)."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for index, (position, sequence) in enumerate(tokens):
            batch.token[index] = 1
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = index == len(tokens) - 1
        began = time.perf_counter()
        assert ll.llama_decode(self._context, batch) == 0
        ll.llama_synchronize(self._context)
        return time.perf_counter() - began


if __name__ == "__main__":
    ll.llama_backend_init()
    sys.stdout.buffer.write(msgspec.json.encode(_measure(msgspec.json.decode(sys.argv[1], type=Request))))
