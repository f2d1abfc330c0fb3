"""What only MLX can show: its answers are mlx-lm's own, prefixes are found in every place, memory that runs out costs one job."""

import gc
import re

import msgspec
import numpy
import pytest

mx = pytest.importorskip("mlx.core", reason="MLX is not installed here")

from mlx_lm import stream_generate  # noqa: E402
from mlx_lm.utils import load  # noqa: E402

from src.engines import load_engine  # noqa: E402
from src.engines.base import Job  # noqa: E402
from src.engines.mlx import MLXOptions  # noqa: E402
from src.errors import EngineDead, EngineError, InsufficientMemory, ModelLoadFailed  # noqa: E402
from src.sampling import SamplingParams  # noqa: E402
from src.text.tokenizer.hf import HFTokenizer  # noqa: E402
from tests.support.hf_model import hf_model  # noqa: E402

PROMPTS = ["What is the capital of France?", "Name a colour.", "Why is the sky blue? Answer in one sentence."]


def options(**changes) -> MLXOptions:
    values = {"model_path": str(hf_model("float32")), "context_length": 512, "max_sequences": 4, "cached_prefixes": 4, "device": "cpu"}
    return MLXOptions(**{**values, **changes})


@pytest.fixture(scope="module")
def engine():
    engine = load_engine("mlx", options())
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def nothing_kept(engine):
    """Every test begins with an idle engine that remembers nothing."""
    engine._prefixes.clear()
    yield
    assert engine.step() == []


@pytest.fixture(scope="module")
def reference():
    """mlx-lm's own model and tokenizer."""
    return load(str(hf_model("float32")))


def words(start: int, length: int) -> list[int]:
    return [1000 + (start * 37 + index * 11) % 3000 for index in range(length)]


def job(id: int, tokens: list[int], max_tokens: int = 6, **sampling) -> Job:
    params = SamplingParams(**{"seed": 1, "temperature": 0.0, "ignore_eos": True, **sampling})
    return Job(id=id, tokens=tokens, prompt_tokens=len(tokens), max_tokens=max_tokens, sampling=params)


class Run:
    """The steps of some jobs, till the engine is idle."""

    def __init__(self, engine, *jobs: Job) -> None:
        for one in jobs:
            engine.add(one)
        self.drawn, self.cached, self.finish, self.errors = {one.id: [] for one in jobs}, {}, {}, {}
        while steps := engine.step():
            for step in steps:
                if step.cached_tokens is not None:
                    assert step.job_id not in self.cached, "told once"
                    self.cached[step.job_id] = step.cached_tokens
                if step.token is not None:
                    self.drawn.setdefault(step.job_id, []).append(step.token)
                if step.finish:
                    self.finish[step.job_id] = step.finish
                if step.error:
                    self.errors[step.job_id] = step.error


# Answers


def test_greedy_output_is_mlx_lms_own_alone_and_in_a_batch(engine, reference):
    model, tokenizer = reference
    prompts = [tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True) for text in PROMPTS]
    expected = [[one.token for one in stream_generate(model, tokenizer, prompt, max_tokens=16)] for prompt in prompts]
    alone = [Run(engine, job(0, prompt, 16, ignore_eos=False)).drawn[0] for prompt in prompts]
    assert alone == expected
    together = Run(engine, *(job(id, prompt, 16, ignore_eos=False) for id, prompt in enumerate(prompts)))
    assert list(together.drawn.values()) == expected
    assert together.finish[0] == "stop"
    assert tokenizer.decode(expected[0]) == "The capital of France is Paris.<|im_end|>"


def test_a_seeded_job_draws_the_same_tokens_alone_and_beside_others(engine):
    sampling = {"temperature": 0.9, "top_p": 0.9, "top_k": 50, "presence_penalty": 0.5, "repetition_penalty": 1.1}
    alone = Run(engine, job(1, words(1, 20), 12, seed=7, **sampling)).drawn[1]
    others = [job(id, words(id, 20 + id), 12, seed=id, temperature=1.2) for id in (2, 3)]
    greedy = job(4, words(4, 9), 12)
    assert Run(engine, others[0], job(1, words(1, 20), 12, seed=7, **sampling), others[1], greedy).drawn[1] == alone


def test_a_job_resumed_beside_others_goes_on_with_the_same_tokens(engine):
    whole = Run(engine, job(1, words(1, 20), 12, seed=7, temperature=1.0)).drawn[1]
    first = job(1, words(1, 20), 12, seed=7, temperature=1.0)
    rest = Job(id=1, tokens=first.tokens + whole[:5], prompt_tokens=20, max_tokens=7, sampling=first.sampling)
    run = Run(engine, rest, job(2, words(2, 30), 12, temperature=1.0))
    assert run.drawn[1] == whole[5:]
    assert run.cached[1] == 20, "of the prompt; the completion is not counted"


# Sampling, held against probabilities computed by numpy


def draw_many(params: SamplingParams, logits: list[float], prompt_tokens: int = 0, tokens: tuple[int, ...] = (0,)) -> numpy.ndarray:
    """Shares of the tokens drawn at 4,000 seeds, in batches of 200 rows."""
    from src.engines.mlx.sampler import BatchSampler, Row

    counts = numpy.zeros(len(logits))
    for batch in range(20):
        sampler = BatchSampler([])
        rows = []
        for row in range(200):
            one = SamplingParams(**{**{f: getattr(params, f) for f in params.__struct_fields__}, "seed": batch * 200 + row})
            rows.append(Row(sampler, one, prompt_tokens)(mx.array(tokens), mx.array([logits])))
        bent = mx.concatenate(rows)
        numpy.add.at(counts, numpy.array(sampler(bent - mx.logsumexp(bent, axis=-1, keepdims=True))), 1)
    return counts / counts.sum()


def probabilities(logits, temperature=1.0) -> numpy.ndarray:
    scaled = numpy.exp(numpy.array(logits) / temperature)
    return scaled / scaled.sum()


LOGITS = [2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -4.0]


@pytest.mark.parametrize(
    ("params", "allowed"),
    [
        ({}, 8),
        ({"temperature": 0.5}, 8),
        ({"top_k": 3}, 3),
        ({"top_k": 100}, 8),
        ({"top_p": 0.5}, 2),  # 0.38 and 0.23 are the first to reach it
        ({"top_k": 3, "top_p": 0.5}, 1),  # of the three left, 0.51 is enough
        ({"top_k": 3, "top_p": 0.6}, 2),  # 0.51 and 0.31
        ({"top_k": 3, "top_p": 0.6, "temperature": 0.5}, 1),  # sharpened first: 0.67 is enough
        ({"min_p": 0.3}, 3),  # a third of the likeliest: logits above 2 + log 0.3 = 0.8
        ({"min_p": 0.3, "top_k": 2}, 2),
    ],
)
def test_tokens_are_drawn_by_their_probability_from_those_that_pass(params, allowed):
    expected = probabilities(LOGITS, params.get("temperature", 1.0))
    expected[allowed:] = 0
    drawn = draw_many(SamplingParams(seed=0, **params), LOGITS)
    assert not drawn[allowed:].any()
    assert numpy.abs(drawn - expected / expected.sum()).max() < 0.03  # four standard deviations of 4,000 draws


def test_rows_of_one_batch_keep_their_own_rules():
    from src.engines.mlx.sampler import BatchSampler, Row

    sampler = BatchSampler([])
    rules = [{"temperature": 0.0}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.9}, {}]
    seen = [set() for _ in rules]
    for seed in range(300):
        rows = [Row(sampler, SamplingParams(seed=seed, **rule), 0)(mx.array([0]), mx.array([LOGITS])) for rule in rules]
        for index, token in enumerate(sampler(mx.concatenate(rows)).tolist()):
            seen[index].add(token)
    assert seen[:4] == [{0}, {0, 1}, {0, 1}, {0}]
    assert len(seen[4]) > 5


def test_penalties_bend_logits_as_in_llama_cpp():
    from src.engines.mlx.sampler import BatchSampler, Row

    def bent(**params) -> list[float]:
        row = Row(BatchSampler([7]), SamplingParams(seed=0, **params), 2)
        return row(mx.array([0, 5, 1, 1, 6]), mx.array([LOGITS])).tolist()[0]  # 0 and 5 are the prompt

    assert bent(repetition_penalty=2.0) == [1.0, 0.75, 1.0, 0.5, 0.0, -1.0, -2.0, -4.0]
    assert bent(presence_penalty=0.5) == [2.0, 1.0, 1.0, 0.5, 0.0, -0.5, -1.5, -4.0]
    assert bent(frequency_penalty=0.5) == [2.0, 0.5, 1.0, 0.5, 0.0, -0.5, -1.5, -4.0]
    assert bent(ignore_eos=True)[7] == -numpy.inf
    assert bent() == LOGITS


def test_biases_and_least_lengths_come_before_the_penalties():
    from src.engines.mlx.sampler import BatchSampler, Row

    def bent(tokens: list[int], **params) -> list[float]:
        return Row(BatchSampler([7]), SamplingParams(seed=0, **params), 2)(mx.array(tokens), mx.array([LOGITS])).tolist()[0]

    assert bent([0, 5], logit_bias={1: 2.5, 4: -100.0}) == [2.0, 4.0, 1.0, 0.5, -100.0, -0.5, -1.0, -4.0]
    assert bent([0, 5], logit_bias={0: 2.0}, repetition_penalty=2.0)[0] == 2.0
    assert bent([0, 5, 1], min_tokens=2, stop_tokens=[3])[3] == bent([0, 5, 1], min_tokens=2)[7] == -numpy.inf
    assert bent([0, 5, 1, 1], min_tokens=2, stop_tokens=[3]) == LOGITS


# Prefixes


def test_a_longer_conversation_computes_only_what_is_new(engine):
    first = Run(engine, job(1, words(1, 50)))
    longer = words(1, 50) + first.drawn[1] + words(2, 10)
    second = Run(engine, job(2, longer))
    assert second.cached[2] == 56, "the prompt and all that was drawn"
    engine._prefixes.clear()
    assert Run(engine, job(3, longer)).drawn[3] == second.drawn[2]


def test_jobs_that_come_together_compute_their_shared_prefix_once(engine):
    shared = words(3, 120)
    run = Run(engine, *(job(id, shared + words(10 + id, 20)) for id in range(4)))
    assert run.cached == {0: 0, 1: 120, 2: 120, 3: 120}
    engine._prefixes.clear()
    alone = Run(engine, job(3, shared + words(13, 20)))
    assert alone.cached == {3: 0}
    assert alone.drawn[3] == run.drawn[3]


def test_a_prefix_is_copied_from_a_running_job_and_leaves_that_job_as_it_was(engine):
    shared = words(4, 60)
    expected = Run(engine, job(1, shared + words(20, 10), 20)).drawn[1]
    engine._prefixes.clear()
    engine.add(job(1, shared + words(20, 10), 20))
    drawn = []
    while len(drawn) < 5:
        drawn += [step.token for step in engine.step() if step.token is not None]
    run = Run(engine, job(2, shared + words(21, 10)))
    assert run.cached[2] == 60
    assert drawn + run.drawn[1] == expected


def test_a_job_that_waited_for_a_cancelled_prompt_is_computed_itself(engine):
    shared = words(5, 400)
    engine.add(job(9, words(50, 20), max_tokens=40))
    while not any(step.token is not None for step in engine.step()):
        pass
    engine.add(job(1, shared + words(51, 10)))
    engine.add(job(2, shared + words(52, 10)))
    engine.step()
    assert engine.stats().waiting == 1, "the second waits for what the first computes"
    engine.cancel(1)
    run = Run(engine)
    assert len(run.drawn[2]) == 6
    assert 0 < run.cached[2] < 400, "what the cancelled one had computed is not lost"


def test_kept_prefixes_are_bounded_by_their_number_and_by_bytes(engine):
    for start in range(6):
        Run(engine, job(1, words(60 + start * 3, 30), 2))
    assert len(engine._prefixes) == 4
    most, engine._prefixes._most_bytes = engine._prefixes._most_bytes, 2 * engine._prefixes.bytes // 4
    Run(engine, job(1, words(90, 30), 2))
    assert len(engine._prefixes) == 2
    engine._prefixes._most_bytes = most


def test_without_caching_nothing_is_kept_or_shared():
    engine = load_engine("mlx", options(cached_prefixes=0))
    tokens = words(7, 60)
    run = Run(engine, job(1, tokens), job(2, tokens))
    assert run.cached == {1: 0, 2: 0}
    assert Run(engine, job(3, tokens)).cached == {3: 0}
    engine.close()


def test_what_one_scope_keeps_is_neither_found_nor_replaced_by_another(engine):
    tokens = words(8, 60)
    first = Run(engine, msgspec.structs.replace(job(1, tokens), scope="a"))
    longer = tokens + first.drawn[1] + words(9, 10)
    assert Run(engine, msgspec.structs.replace(job(2, longer), scope="b")).cached == {2: 0}
    assert Run(engine, msgspec.structs.replace(job(3, longer), scope="a")).cached == {3: 66}


def test_a_cache_that_cannot_be_cut_is_used_only_as_a_whole():
    from mlx_lm.models.cache import RotatingKVCache

    from src.engines.mlx.prefix_cache import Prefixes

    window = RotatingKVCache(max_size=8)
    window.update_and_fetch(mx.zeros((1, 1, 12, 4)), mx.zeros((1, 1, 12, 4)))
    prefixes = Prefixes(4, 2**20)
    prefixes.keep(list(range(12)), [window])
    assert prefixes.find([*range(12), 50]) == 12
    assert prefixes.find([*range(10), 50]) == 0, "the window has moved beyond it"
    assert prefixes.take([*range(10), 50]) == (None, 0)
    short = RotatingKVCache(max_size=8)
    short.update_and_fetch(mx.zeros((1, 1, 6, 4)), mx.zeros((1, 1, 6, 4)))
    prefixes.keep(list(range(6)), [short])
    cache, length = prefixes.take([*range(10), 50])
    assert (cache[0].offset, length) == (6, 6), "the shorter one, which is of use"


# Memory and refusals


OUT_OF_MEMORY = "[METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)."
TOO_LARGE = "[metal::malloc] Attempting to allocate 99999999999 bytes which is greater than the maximum allowed buffer size."


@pytest.mark.parametrize("text", [TOO_LARGE, OUT_OF_MEMORY])
def test_when_memory_runs_out_one_job_fails_and_the_others_go_on_as_they_would_have(engine, monkeypatch, text):
    """MLX's CPU backend ends the process where Metal raises, so that Metal's exception is raised in its place."""
    jobs = [job(id, words(id, 20 + id), 10, seed=id, temperature=1.0) for id in (1, 2, 3)]
    expected = Run(engine, *jobs).drawn
    engine._prefixes.clear()
    for one in jobs:
        engine.add(one)
    drawn = {id: [] for id in expected}
    while len(drawn[1]) < 4:
        for step in engine.step():
            drawn[step.job_id] += [] if step.token is None else [step.token]
    generate = engine._generator.next

    def fail() -> None:
        generate()
        raise RuntimeError(text)

    monkeypatch.setattr(engine._generator, "next", fail)
    failed = engine.step()
    assert [step.job_id for step in failed] == [3]
    assert isinstance(failed[0].error, InsufficientMemory)
    assert "max_tokens" in failed[0].error.message
    run = Run(engine)
    assert not run.errors
    assert [drawn[id] + run.drawn[id] for id in (1, 2)] == [expected[1], expected[2]]
    assert engine._most_running == 2
    engine._most_running = 4


def failing_keep(monkeypatch, engine, text: str) -> None:
    def fail(*given) -> None:
        monkeypatch.undo()
        raise RuntimeError(text)

    monkeypatch.setattr(engine._prefixes, "keep", fail)


def test_an_error_of_the_batch_that_comes_while_a_prefix_is_kept_is_not_lost(engine, monkeypatch):
    jobs = [job(id, words(id, 20), 12, seed=id, temperature=1.0) for id in (1, 2)]
    expected = Run(engine, *jobs).drawn
    engine._prefixes.clear()
    failing_keep(monkeypatch, engine, OUT_OF_MEMORY)
    generator = engine._generator
    run = Run(engine, *jobs, job(3, words(3, 20), 3))
    assert engine._generator is not generator, "the batch is computed anew"
    assert not run.errors
    assert {id: run.drawn[id] for id in (1, 2)} == expected


def test_any_other_error_while_a_prefix_is_kept_ends_the_engine(monkeypatch):
    engine = load_engine("mlx", options())
    failing_keep(monkeypatch, engine, "[METAL] Command buffer execution failed: Impacting Interactivity (0000000e:…).")
    with pytest.raises(EngineDead, match="Impacting Interactivity"):
        Run(engine, job(1, words(1, 5), 2))
    engine.close()


def test_when_memory_runs_out_an_answer_goes_on_within_its_grammar(engine, monkeypatch):
    """What was drawn ahead is drawn again, and the grammar, which is behind it already, is asked once more."""

    class Alternating:
        """Another half of some hundred tokens at each place."""

        source = ""

        def __init__(self) -> None:
            self.accepted: list[int] = []

        def allowed(self) -> bytes:
            return bytes([0b01010101 if len(self.accepted) % 2 else 0b10101010] * 512)

        def accept(self, token: int) -> None:
            assert token % 2 != len(self.accepted) % 2
            self.accepted.append(token)

    def jobs() -> list[Job]:
        return [msgspec.structs.replace(job(1, words(1, 20), 10, temperature=1.0), grammar=Alternating()), job(2, words(2, 20), 10)]

    expected = Run(engine, *jobs()).drawn[1]
    assert len(expected) == 10
    engine._prefixes.clear()
    for one in jobs():
        engine.add(one)
    drawn = []
    while len(drawn) < 4:
        drawn += [step.token for step in engine.step() if step.token is not None and step.job_id == 1]
    generate = engine._generator.next

    def fail() -> None:
        generate()
        raise RuntimeError("[metal::malloc] Unable to allocate 99999999999 bytes.")

    monkeypatch.setattr(engine._generator, "next", fail)
    assert [step.job_id for step in engine.step()] == [2]
    run = Run(engine)
    assert not run.errors
    assert drawn + run.drawn[1] == expected
    engine._most_running = 4


def test_a_token_drawn_again_as_another_one_fails_its_job():
    from src.engines.mlx.grammar_mask import Mask

    class Anything:
        source = ""

        def allowed(self) -> bytes:
            return b"\xff"

        def accept(self, token: int) -> None:
            pass

    mask = Mask(Anything())
    mask.behind(0, lambda: 0)
    mask.behind(1, lambda: 5)
    mask.behind(0, lambda: 0)
    assert mask.behind(1, lambda: 5) == b"\xff"
    with pytest.raises(EngineError, match="cannot go back"):
        mask.behind(1, lambda: 6)


def test_any_other_failure_of_mlx_ends_the_engine(monkeypatch):
    engine = load_engine("mlx", options())
    engine.add(job(1, words(1, 5)))

    def fail() -> None:
        raise RuntimeError("[Event::stream] Cannot access stream on invalid event.")

    monkeypatch.setattr(engine._generator, "next", fail)
    with pytest.raises(EngineDead, match="Cannot access stream"):
        engine.step()
    engine.close()


def test_jobs_wait_where_their_caches_would_not_fit_together(engine):
    room, engine._model.room = engine._model.room, 2 * engine._model.sequence_bytes(256)
    for id, length in ((1, 200), (2, 200), (3, 300)):
        engine.add(job(id, words(id, 20), length))
    engine.step()
    assert (engine.stats().running, engine.stats().waiting) == (2, 1)
    for id in (1, 2):
        engine.cancel(id)
    engine.step()
    assert (engine.stats().running, engine.stats().waiting) == (1, 0)
    assert len(engine._prefixes) == 0, "what was kept made room"
    engine.cancel(3)
    engine._model.room = room


@pytest.mark.parametrize("device", ["mps", "cuda"])
def test_a_device_that_is_not_there_is_refused_by_name(device):
    if device == "mps" and mx.metal.is_available():
        pytest.skip("it is there")
    with pytest.raises(ModelLoadFailed, match=rf"DEVICE_TYPE={device}, but MLX has no such device here\. Use auto or"):
        load_engine("mlx", options(device=device))


def test_a_model_larger_than_the_memory_it_may_use_is_refused_with_the_numbers():
    with pytest.raises(ModelLoadFailed, match=r"0\.5 GiB of weights, but MLX may use 0\.2 GiB"):
        load_engine("mlx", options(device="cpu", memory_bytes=2**30, memory_fraction=0.2))


def test_a_context_that_does_not_fit_is_refused_with_the_numbers():
    memory = 7 * 10**8  # 540 MB of weights, and some of what other engines of this process still hold
    held = mx.get_active_memory()
    needs = r"CONTEXT_LENGTH=8192 needs 0\.\d\d GiB of KV cache for one sequence, but 0\.\d\d GiB .* (\d+) tokens would fit"
    with pytest.raises(ModelLoadFailed, match=needs) as refused:
        load_engine("mlx", options(device="cpu", context_length=8192, memory_bytes=memory + held, memory_fraction=1.0))
    fits = int(re.search(needs, refused.value.message)[1])
    del refused  # its traceback holds the model
    gc.collect()
    engine = load_engine("mlx", options(device="cpu", context_length=fits, memory_bytes=memory + held, memory_fraction=1.0))
    assert 256 <= engine.context_length == fits < 4096
    engine.close()


def test_a_quantised_cache_is_refused_for_it_cannot_be_batched():
    with pytest.raises(ModelLoadFailed, match="KV_CACHE_TYPE=q8_0"):
        load_engine("mlx", options(kv_type="q8_0"))


def test_a_folder_that_mlx_lm_cannot_read_is_refused_by_name(tmp_path):
    tmp_path.joinpath("config.json").write_text('{"model_type": "no-such-model"}')
    tmp_path.joinpath("model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelLoadFailed, match=rf"mlx-lm cannot load {tmp_path.name}"):
        load_engine("mlx", options(model_path=str(tmp_path)))


def test_code_that_a_folder_names_is_not_run(tmp_path):
    mark = tmp_path / "mark"
    tmp_path.joinpath("config.json").write_text('{"model_type": "llama", "model_file": "evil.py"}')
    tmp_path.joinpath("evil.py").write_text(f"open({str(mark)!r}, 'w')")
    tmp_path.joinpath("model.safetensors").write_bytes((hf_model("float32") / "model.safetensors").read_bytes())
    with pytest.raises(ModelLoadFailed, match=rf"mlx-lm cannot load {tmp_path.name}"):
        load_engine("mlx", options(model_path=str(tmp_path)))
    assert not mark.exists()


def test_the_tokenizer_ends_where_the_engine_does(engine):
    assert list(HFTokenizer(hf_model("float32")).end_tokens) == engine._model.end_tokens == [2]
