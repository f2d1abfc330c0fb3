"""Without OpenMP, llama.cpp computes with threads that are kept; with it, with OpenMP's. This build has it, and takes others too."""

import pytest

from src.engines import load_engine
from src.engines.llamacpp import LlamaCppOptions, threads
from tests.engines.test_contract import Run, job

pytestmark = pytest.mark.macos


@pytest.fixture
def pools(monkeypatch) -> dict[int, str]:
    """What became of each that was made."""
    found: dict[int, str] = {}
    make, attach, close = threads._new, threads.ThreadPool.attach, threads.ThreadPool.close

    def made(count: int) -> int:
        pool = make(count)
        found[pool] = f"made of {count}"
        return pool

    def attached(self: threads.ThreadPool, context: object) -> None:
        attach(self, context)
        if self._pool:
            found[self._pool] += ", attached"

    def closed(self: threads.ThreadPool) -> None:
        pool = self._pool
        close(self)
        if pool:
            found[pool] += ", freed"

    monkeypatch.setattr(threads, "_new", made)
    monkeypatch.setattr(threads.ThreadPool, "attach", attached)
    monkeypatch.setattr(threads.ThreadPool, "close", closed)
    return found


def answered(model_path, count: int = 2) -> list[int]:
    options = LlamaCppOptions(model_path=str(model_path), context_length=128, max_sequences=2, threads=count, device="cpu")
    engine = load_engine("llama_cpp", options)
    try:
        for _ in engine.embed([[1, 2, 3]]):
            pass
        return Run(engine, [job(1, temperature=0.0)]).tokens[1]
    finally:
        engine.close()


def test_without_openmp_the_threads_of_a_model_are_kept_till_its_end(model_path, monkeypatch, pools):
    plain = answered(model_path)
    assert pools == {}, "OpenMP keeps its own"
    monkeypatch.setattr(threads, "has_openmp", lambda: False)
    assert answered(model_path) == plain
    assert list(pools.values()) == ["made of 2, attached, attached, freed"]


@pytest.mark.parametrize(("device", "count"), [("mps", 4), ("cpu", 1)])
def test_a_gpu_and_a_single_thread_have_none(monkeypatch, pools, device, count):
    monkeypatch.setattr(threads, "has_openmp", lambda: False)
    threads.ThreadPool(device, count).close()
    assert pools == {}


def test_the_parameters_are_where_ggml_has_them():
    params = threads.defaults(5)
    assert (params.n_threads, params.prio, params.poll, params.strict_cpu, params.paused) == (5, 0, 50, False, False)
    assert not any(params.cpumask)


def test_a_build_tells_whether_it_has_openmp(monkeypatch):
    monkeypatch.setattr(threads.ll, "llama_print_system_info", lambda: b"Metal : EMBED_LIBRARY = 1 | CPU : NEON = 1 | ")
    assert not threads.has_openmp()
    monkeypatch.setattr(threads.ll, "llama_print_system_info", lambda: b"CPU : NEON = 1 | OPENMP = 1 | ")
    assert threads.has_openmp()
