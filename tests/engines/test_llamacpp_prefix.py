"""Shared prefixes on llama.cpp: what is computed, what is copied, what waits, and that it changes no answer."""

import random
from collections import defaultdict

import llama_cpp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.engines import load_engine
from src.engines.base import Job
from src.engines.llamacpp import LlamaCppOptions
from src.sampling import SamplingParams
from tests.support.llamacpp_greedy import TOLERANCE, GreedyReference
from tests.support.nan_model import noise_gguf
from tests.support.tiny_gguf import END

pytestmark = pytest.mark.slow

CONTEXT = 512


@pytest.fixture(scope="module")
def load(model_path):
    """Engines with four slots, made as asked for and closed at the end."""
    made = []

    def make(cached_prefixes: int = 4):
        options = LlamaCppOptions(
            model_path=str(model_path), context_length=CONTEXT, max_sequences=4, cached_prefixes=cached_prefixes, threads=1, device="cpu"
        )
        made.append(load_engine("llama_cpp", options))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(scope="module")
def reference(model_path):
    return GreedyReference(model_path, CONTEXT)


def words(start: int, length: int) -> list[int]:
    return [1000 + (start * 37 + index * 11) % 3000 for index in range(length)]


def job(id: int, tokens: list[int], max_tokens: int = 8) -> Job:
    sampling = SamplingParams(seed=1, temperature=0.0, ignore_eos=True)
    return Job(id=id, tokens=tokens, prompt_tokens=len(tokens), max_tokens=max_tokens, sampling=sampling)


def run(engine, jobs: list[Job]) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Completion and cached tokens of each job, also of those that were running before."""
    for one in jobs:
        engine.add(one)
    drawn, cached = defaultdict(list), {}
    while steps := engine.step():
        for step in steps:
            if step.cached_tokens is not None:
                cached[step.job_id] = step.cached_tokens
            if step.token is not None:
                drawn[step.job_id].append(step.token)
    return drawn, cached


def test_jobs_that_come_together_compute_their_shared_prefix_once(load, reference):
    engine = load()
    shared = words(1, 200)
    jobs = [job(id, shared + words(10 + id, 20)) for id in range(4)]
    drawn, cached = run(engine, jobs)
    assert cached == {0: 0, 1: 200, 2: 200, 3: 200}
    assert engine.stats().prefix_copies == 3
    for one in jobs:
        reference.assert_greedy(one.tokens, drawn[one.id])


def test_the_reference_notices_a_wrong_prefix(load, reference):
    shared = words(1, 200)
    jobs = [job(id, shared + words(10 + id, 20)) for id in range(4)]
    drawn, _ = run(load(cached_prefixes=0), jobs)
    wrong = words(77, 100) + shared[100:]
    assert max(reference.shortfall(wrong + one.tokens[200:], drawn[one.id]) for one in jobs) > 7 * TOLERANCE


def test_a_prefix_is_copied_from_a_running_job(load, reference):
    engine = load()
    shared = words(2, 150)
    first, second = job(1, shared + words(20, 10), max_tokens=40), job(2, shared + words(21, 10))
    engine.add(first)
    for _ in range(10):
        engine.step()
    drawn, cached = run(engine, [second])
    assert cached[2] == 150
    assert engine.stats().prefix_copies == 1
    reference.assert_greedy(second.tokens, drawn[2])


def test_a_kept_conversation_survives_a_job_that_shares_only_its_beginning(load):
    engine = load()
    system, talk = words(3, 60), words(30, 200)
    run(engine, [job(1, system + talk)])
    _, cached = run(engine, [job(2, system + words(31, 40))])
    assert cached[2] == 60, "the beginning was copied"
    _, cached = run(engine, [job(3, system + talk)])
    assert cached[3] == 259, "and the conversation is still there"


def test_a_short_prefix_is_computed_rather_than_copied(load):
    engine = load()
    shared = words(4, 6)
    engine.add(job(1, shared + words(40, 100), max_tokens=30))
    for _ in range(5):
        engine.step()
    _, cached = run(engine, [job(2, shared + words(41, 100))])
    assert cached[2] == 0
    assert engine.stats().prefix_copies == 0


def test_a_system_prompt_is_computed_no_more_once_as_many_conversations_are_kept_as_may_be(load, reference):
    engine = load(cached_prefixes=2)
    system = words(8, 20)
    answers = [(one, *run(engine, [one])) for one in (job(id, system + words(100 + id, 40)) for id in range(7))]
    assert [cached[one.id] for one, _, cached in answers] == [0, 0, 0, 20, 20, 20, 20]
    kept = sorted(len(slot.cells) for slot in engine._slots.all)
    assert kept[-3:] == [20, 67, 67], "the third holds nothing that the two do not"
    for one, drawn, _ in answers:
        reference.assert_greedy(one.tokens, drawn[one.id])


def test_a_job_that_waited_for_a_cancelled_prompt_is_computed_itself(load, reference):
    engine = load()
    shared = words(5, 400)
    engine.add(job(9, words(50, 20), max_tokens=60))  # keeps the prompts in chunks
    engine.step()
    first, second = job(1, shared + words(51, 10)), job(2, shared + words(52, 10))
    engine.add(first)
    engine.add(second)
    engine.step()
    assert engine.stats().waiting == 1, "the second waits for what the first computes"
    engine.cancel(1)
    tokens = []
    while steps := engine.step():
        tokens += [step.token for step in steps if step.job_id == 2 and step.token is not None]
    reference.assert_greedy(second.tokens, tokens)


def test_another_job_passes_one_that_waits_for_a_prefix(load):
    engine = load()
    shared = words(6, 400)
    engine.add(job(9, words(60, 20), max_tokens=30))
    engine.step()
    for one in (job(1, shared + words(61, 10)), job(2, shared + words(62, 10)), job(3, words(63, 30))):
        engine.add(one)
    engine.step()
    assert sorted(slot.job.id for slot in engine._slots.running()) == [1, 3, 9]
    run(engine, [])


def test_without_caching_nothing_is_shared(load):
    engine, shared = load(cached_prefixes=0), words(7, 100)
    _, cached = run(engine, [job(1, shared + words(70, 5)), job(2, shared + words(71, 5))])
    assert cached == {1: 0, 2: 0}
    assert engine.stats().prefix_copies == 0


def test_streams_that_outlive_their_neighbours_move_together(load, reference):
    engine = load()
    jobs = [job(id, words(80 + id, 20), max_tokens=60) for id in range(4)]
    drawn = defaultdict(list)

    def step() -> None:
        for one in engine.step():
            drawn[one.job_id].append(one.token)

    for one in jobs:
        engine.add(one)
    for _ in range(10):
        step()
    for id in (0, 2):
        engine.cancel(id)
    step()
    assert [slot.seq_id for slot in engine._slots.running()] == [1, 2]
    assert engine.stats().moves == 1
    assert [slot.seq_id for slot in engine._slots.all] == [0, 1, 2, 3]
    assert not engine._slots.all[3].cells, "nothing stays where it came from"
    while engine.stats().running:
        step()
    for id in (1, 3):
        assert len(drawn[id]) == 60
        reference.assert_greedy(jobs[id].tokens, drawn[id])
    for slot in engine._slots.all:
        assert_same_cells(engine, slot)


def test_a_stream_that_ends_soon_is_not_moved(load):
    engine = load()
    for id in range(3):
        engine.add(job(id, words(90 + id, 20), max_tokens=20))
    for _ in range(3):
        engine.step()
    engine.cancel(1)
    engine.step()
    assert [slot.seq_id for slot in engine._slots.running()] == [0, 2]
    run(engine, [])


def test_what_lies_in_a_gap_is_kept_when_a_stream_moves_there(load):
    engine = load(cached_prefixes=3)
    talk = words(95, 100)
    engine.add(job(1, words(96, 20), max_tokens=100))
    engine.step()
    engine.add(job(2, talk, max_tokens=1))
    engine.add(job(3, words(97, 20), max_tokens=100))
    for _ in range(60):  # how many a prompt takes follows from how long steps take here
        if engine.stats().moves:
            break
        engine.step()
    assert engine.stats().moves == 1
    _, cached = run(engine, [job(4, talk + words(98, 5))])
    assert cached[4] == 100


def assert_same_cells(engine, slot) -> None:
    held = llama_cpp.llama_memory_seq_pos_max(engine._model.memory, slot.seq_id) + 1
    assert held == len(slot.cells), "what we believe and what llama.cpp holds differ"


one_job = st.tuples(
    st.integers(0, 2),  # which shared prefix
    st.integers(0, 120),  # how much of it
    st.integers(1, 60),  # own tokens
    st.integers(1, 48),  # completion tokens
    st.integers(0, 12),  # steps till the next job comes
    st.one_of(st.none(), st.integers(0, 8)),  # steps after which the job is cancelled
    st.booleans(),  # may it end by an end-of-generation token?
    st.sampled_from(["", "a", "b"]),  # its key
)


def assert_nothing_lost(engine, traffic: list[tuple]) -> None:
    """Run the jobs: each ends or was cancelled, and no slot and no cell is lost."""
    finished, cancels = set(), {}

    def step() -> bool:
        for id in [id for id, left in cancels.items() if left <= 0]:
            engine.cancel(id)
            finished.add(id)
            del cancels[id]
        for id in cancels:
            cancels[id] -= 1
        steps = engine.step()
        finished.update(step.job_id for step in steps if step.finish)
        return bool(steps)

    for id, (prefix, length, own, max_tokens, gap, cancel, may_stop, key) in enumerate(traffic):
        tokens = words(prefix, length) + words(100 + id, own)
        ends = {END: 9.0} if may_stop else {}  # noise seldom draws it
        sampling = SamplingParams(seed=id, temperature=1.5 if may_stop else 0.0, ignore_eos=not may_stop, logit_bias=ends)
        engine.add(Job(id=id, tokens=tokens, prompt_tokens=len(tokens), max_tokens=max_tokens, sampling=sampling, key=key))
        if cancel is not None:
            cancels[id] = cancel
        for _ in range(gap):
            step()
    while step() or cancels:
        pass
    assert finished == set(range(len(traffic)))
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.kv_used) == (0, 0, 0)
    assert sum(bool(slot.cells) for slot in engine._slots.all) <= 4
    assert [slot.seq_id for slot in engine._slots.all] == list(range(len(engine._slots.all)))
    for slot in engine._slots.all:
        assert_same_cells(engine, slot)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(st.lists(one_job, min_size=1, max_size=25))
def test_random_traffic_loses_no_slot_no_cell_and_no_job(shared_engine, traffic):
    assert_nothing_lost(shared_engine, traffic)


def test_five_hundred_jobs_lose_no_slot_no_cell_and_no_job(shared_engine):
    numbers = random.Random(500)  # more than hypothesis generates in one example
    traffic = [
        (
            numbers.randrange(3), numbers.randrange(121), numbers.randint(1, 60), numbers.randint(1, 48), numbers.choice([0, 0, 0, 1, 5]),
            numbers.choice([None, None, None, *range(9)]), numbers.random() < 0.5, numbers.choice(["", "a", "b"]),
        )
        for _ in range(500)
    ]  # fmt: skip
    assert_nothing_lost(shared_engine, traffic)
    assert shared_engine.stats().moves
    assert shared_engine.stats().prefix_copies


@pytest.fixture(scope="module")
def shared_engine(tmp_path_factory):
    """Of a tiny model: what is kept where does not depend on what is computed, and it computes a hundred times as fast."""
    path = tmp_path_factory.mktemp("noise") / "noise.gguf"
    path.write_bytes(noise_gguf(context_length=CONTEXT))
    options = LlamaCppOptions(model_path=str(path), context_length=CONTEXT, max_sequences=4, cached_prefixes=4, threads=1, device="cpu")
    engine = load_engine("llama_cpp", options)
    yield engine
    engine.close()
