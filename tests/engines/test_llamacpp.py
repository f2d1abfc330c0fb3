"""What only llama.cpp can show: its answers are llama.cpp's own, its prefix cache keeps its bound, its refusals have numbers."""

import sys

import llama_cpp
import psutil
import pytest

from src.engines import load_engine
from src.engines.base import Job
from src.engines.llamacpp import LlamaCppOptions
from src.engines.llamacpp.device import CPU, choose_device, free_memory
from src.engines.prefill_budget import PrefillBudget
from src.errors import ModelLoadFailed
from src.sampling import SamplingParams
from tests.support.llamacpp_greedy import GreedyReference


def options(model_path, **changes) -> LlamaCppOptions:
    values = {"model_path": str(model_path), "context_length": 512, "max_sequences": 4, "cached_prefixes": 2, "threads": 1, "device": "cpu"}
    return LlamaCppOptions(**{**values, **changes})


@pytest.fixture(scope="module")
def engine(model_path):
    engine = load_engine("llama_cpp", options(model_path))
    yield engine
    engine.close()


@pytest.fixture
def new_engine(model_path):
    """Which remembers no keys."""
    engine = load_engine("llama_cpp", options(model_path))
    yield engine
    engine.close()


def run(engine, tokens, max_tokens=24, **sampling) -> tuple[list[int], int, str]:
    engine.add(Job(id=1, tokens=tokens, prompt_tokens=len(tokens), max_tokens=max_tokens, sampling=SamplingParams(seed=1, **sampling)))
    drawn, cached, finish = [], None, None
    while steps := engine.step():
        for step in steps:
            cached = step.cached_tokens if step.cached_tokens is not None else cached
            finish = step.finish or finish
            drawn += [] if step.token is None else [step.token]
    return drawn, cached, finish


GIB = 2**30
PROMPT = b"<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


def test_greedy_output_is_llama_cpps_own(engine, model_path):
    reference = llama_cpp.Llama(str(model_path), n_ctx=512, n_threads=1, verbose=False)
    tokens = reference.tokenize(PROMPT, add_bos=False, special=True)
    expected = []
    for token in reference.generate(tokens, temp=0.0):
        expected.append(token)
        if len(expected) == 24 or token == reference.token_eos():
            break
    drawn, _, _ = run(engine, tokens, temperature=0.0)
    assert drawn == expected


def test_an_answer_ends_with_stop_at_the_end_of_turn_token(engine, model_path):
    tokens = llama_cpp.Llama(str(model_path), vocab_only=True, verbose=False).tokenize(PROMPT, add_bos=False, special=True)
    drawn, _, finish = run(engine, tokens, max_tokens=300, temperature=0.0)
    assert finish == "stop"
    assert len(drawn) < 300


def test_at_most_cache_size_idle_sequences_keep_their_cells(engine):
    for start in range(5):
        run(engine, [40 + start * 3 + i for i in range(30)], max_tokens=2)
    assert sum(bool(slot.cells) for slot in engine._slots.all) == 2


def test_without_caching_nothing_is_kept(model_path):
    engine = load_engine("llama_cpp", options(model_path, cached_prefixes=0))
    tokens = list(range(40, 90))
    run(engine, tokens)
    assert run(engine, tokens)[1] == 0
    engine.close()


def test_a_longer_conversation_computes_only_what_is_new(engine):
    tokens = list(range(40, 140))
    drawn, _, _ = run(engine, tokens, max_tokens=5, ignore_eos=True)
    longer = tokens + drawn + list(range(200, 230))
    _, cached, _ = run(engine, longer)
    assert cached == len(tokens) + 4, "the prompt and the drawn tokens but the last, which was never computed"


def on_a_gpu(monkeypatch, free: int) -> None:
    """As if this build had one with so many bytes free. Computes on the CPU."""
    monkeypatch.setattr("src.engines.llamacpp.model.choose_device", lambda device, params: choose_device("cpu", params) and "cuda")
    monkeypatch.setattr("src.engines.llamacpp.model.free_memory", lambda *kinds: free)


def test_what_a_gpu_has_no_room_for_is_refused_with_the_numbers(model_path, monkeypatch):
    on_a_gpu(monkeypatch, 2 * 2**30)
    with pytest.raises(ModelLoadFailed, match=r"needs 3\.5 GiB of KV cache, but 1\.\d GiB of the GPU are free.* 10 sequences would fit"):
        load_engine("llama_cpp", options(model_path, context_length=8192, max_sequences=20, kv_type="f16"))


def test_of_what_is_open_a_gpu_gets_as_much_as_it_has_room_for(model_path, monkeypatch):
    on_a_gpu(monkeypatch, GIB)
    given = {"context_length": 8192, "max_sequences": 20, "kv_type": "f16"}

    def loaded(**fields: bool) -> tuple[int, int]:
        engine = load_engine("llama_cpp", options(model_path, **given, **fields))
        engine.close()
        return engine.context_length, engine.stats().slots

    assert loaded(sequences_are_open=True) == (8192, 5)
    assert loaded(context_is_open=True) == (2048, 20)
    assert loaded(context_is_open=True, sequences_are_open=True) == (8192, 5)


def test_a_device_that_is_not_there_is_refused_by_name(model_path):
    missing = "cuda" if sys.platform == "darwin" else "mps"
    with pytest.raises(ModelLoadFailed, match=f"DEVICE_TYPE={missing}"):
        load_engine("llama_cpp", options(model_path, device=missing))


def test_a_quantised_cache_answers_and_takes_about_half_the_memory(model_path, monkeypatch):
    with monkeypatch.context() as patch:
        on_a_gpu(patch, 2**30)
        with pytest.raises(ModelLoadFailed, match=r"needs 1\.9 GiB of KV cache.* KV_CACHE_TYPE=q8_0"):
            load_engine("llama_cpp", options(model_path, context_length=8192, max_sequences=20, kv_type="q8_0"))
    engine = load_engine("llama_cpp", options(model_path, kv_type="q8_0"))
    tokens = llama_cpp.Llama(str(model_path), vocab_only=True, verbose=False).tokenize(PROMPT, add_bos=False, special=True)
    drawn, _, _ = run(engine, tokens, temperature=0.0)
    engine.close()
    reference = GreedyReference(model_path, 512)
    assert reference.shortfall(tokens, drawn) < 2, "another rounding, not another answer"


def test_memory_of_a_device_is_read_from_llama_cpp():
    available = psutil.virtual_memory().available
    assert 0.5 * available < free_memory(CPU) < 2 * psutil.virtual_memory().total
    assert free_memory() == 0


def job_of(key: str, id: int, max_tokens: int) -> Job:
    """Its prompt has 20 tokens, others than any other job's."""
    sampling = SamplingParams(seed=1, temperature=0.0, ignore_eos=True)
    tokens = [100 + id * 31 + index for index in range(20)]
    return Job(id=id, tokens=tokens, prompt_tokens=20, max_tokens=max_tokens, sampling=sampling, key=key)


def test_a_job_whose_key_has_little_running_passes_those_of_a_busy_key(new_engine):
    engine = new_engine
    for id in range(10):
        engine.add(job_of("late" if id == 9 else "busy", id, max_tokens=3 + id % 4))
    order = []
    while steps := engine.step():
        order += [step.job_id for step in steps if step.cached_tokens is not None]
    assert set(order) == set(range(10))
    assert order.index(9) <= 4, "four slots: it has to be among the first that are admitted after"
    stats = engine.stats()
    assert stats.admitted >= 10
    assert stats.waited_seconds > 0


def test_the_prompt_of_a_key_that_runs_little_has_a_step_of_its_own(new_engine):
    engine = new_engine
    late = job_of("late", 9, max_tokens=3)
    engine.add(late)
    alone = [step.token for _ in range(3) for step in engine.step()]
    for id in range(3):
        engine.add(job_of("busy", id, max_tokens=40))
    while len([step for step in engine.step() if step.token is not None]) < 3:
        pass
    engine.add(late)
    steps = [engine.step() for _ in range(4)]
    assert [{step.job_id for step in one} for one in steps] == [{9}, {0, 1, 2, 9}, {0, 1, 2, 9}, {0, 1, 2}]
    assert [step.token for one in steps for step in one if step.job_id == 9] == alone


@pytest.mark.slow
def test_a_long_prompt_in_the_last_slot_is_not_passed_for_ever(engine):
    """Short prompts keep coming, each into a slot before the long one's."""
    decoding = SamplingParams(seed=1, ignore_eos=True)
    engine.add(Job(id=0, tokens=[50, 51], prompt_tokens=2, max_tokens=400, sampling=decoding))
    engine.step()
    long = [(7 * index) % 3000 + 500 for index in range(400)]
    engine._budget = PrefillBudget(1e-9, 512)  # no time at all: each step has room for the least
    for id in (1, 2):
        engine.add(Job(id=id, tokens=[60 + id] * 60, prompt_tokens=60, max_tokens=1, sampling=decoding))
    engine.add(Job(id=3, tokens=long, prompt_tokens=400, max_tokens=1, sampling=decoding))
    done, next_id = False, 4
    for _ in range(200):
        for step in engine.step():
            done |= step.job_id == 3 and step.token is not None
            if step.job_id > 0 and step.finish and not done:
                engine.add(Job(id=next_id, tokens=[80 + next_id] * 60, prompt_tokens=60, max_tokens=1, sampling=decoding))
                next_id += 1
        if done:
            break
    assert done, "400 tokens, at least 3 a step: one as everybody, and two of the five left as the oldest"
    for id in range(next_id):
        engine.cancel(id)


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelLoadFailed, match=r"broken\.gguf"):
        load_engine("llama_cpp", options(path))
