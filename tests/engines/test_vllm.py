"""What the engine vLLM adds to the contract: its settings, grammars in its workers, its processes. One engine for all of it."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import msgspec
import pytest

from src.engines import load_engine, why_not
from src.engines.base import Job
from src.errors import EngineDead, EngineError, ModelLoadFailed
from tests.engines.test_contract import Run, job
from tests.support.hf_model import hf_model
from tests.support.server import assert_gone
from tests.support.vllm_small import CONTEXT, options, place_threads_anew, step_on, vllms_processes

if reason := why_not("vllm"):
    pytest.skip(reason, allow_module_level=True)

NGRAMS = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4, "prompt_lookup_min": 1}


@pytest.fixture(scope="module")
def engine():
    loaded = load_engine("vllm", options())
    family = vllms_processes()
    assert len(family) == 2, "the core and its worker"
    yield loaded
    loaded.close()
    assert_gone(family)


class Followed:
    """A grammar as the runner hands it over: the engine's library follows `source`, and the engine tells what was drawn."""

    def __init__(self, source: str, tokens: list[int] = ()) -> None:
        from llguidance import LLMatcher, LLTokenizer

        self.source = source
        self._matcher = LLMatcher(LLTokenizer(str(hf_model("float32") / "tokenizer.json"), eos_token=2), source, log_level=0)
        for token in tokens:
            self.accept(token)

    def allowed(self) -> bytes:
        raise AssertionError("vLLM's workers ask their own copy")

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise EngineError(f"{token} is not allowed here")


def text_of(tokens: list[int]) -> str:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(hf_model("float32") / "tokenizer.json")).decode(tokens)


def with_grammar(id: int, source: str, *, known: list[int] = (), max_tokens: int = 40, **sampling) -> Job:
    plain = job(id, ignore_eos=False, **{"seed": 5, "temperature": 1.0, **sampling})
    grammar = Followed(source, known)
    return Job(
        id=id,
        tokens=[*plain.tokens, *known],
        prompt_tokens=12,
        max_tokens=max_tokens - len(known),
        sampling=plain.sampling,
        grammar=grammar,
    )


DATE = 'start: "It is " /[0-9]{4}-[0-9]{2}-[0-9]{2}/ "."'


def test_a_job_with_a_grammar_draws_what_it_allows_and_ends_where_it_ends(engine):
    run = Run(engine, [with_grammar(1, DATE), job(2, start=50, max_tokens=10), with_grammar(3, DATE, seed=6)])
    for id in (1, 3):
        text = text_of(run.tokens[id][:-1])
        assert (len(text), text[:6], text[-1], run.finish[id]) == (17, "It is ", ".", "stop")
    assert len(run.tokens[2]) == 10, "a job without one is not held to it"
    assert run.tokens[1] != run.tokens[3], "and within it each draws by its own seed"


def test_a_greedy_job_follows_its_grammar_too(engine):
    run = Run(engine, [with_grammar(1, DATE, temperature=0.0)])
    assert text_of(run.tokens[1][:-1]).startswith("It is ")


def test_a_job_resumed_within_its_grammar_goes_on_in_it_with_the_same_tokens(engine):
    whole = Run(engine, [with_grammar(1, DATE)]).tokens[1]
    for known in (1, 5, len(whole) - 1):
        rest = Run(engine, [with_grammar(2, DATE, known=whole[:known])])
        assert rest.tokens[2] == whole[known:]
        assert rest.finish[2] == "stop"


def test_a_schema_in_llguidances_own_json_is_followed(engine):
    from llguidance import LLMatcher

    schema = '{"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": false}'
    source = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
    assert "".join(text_of(Run(engine, [with_grammar(1, source)]).tokens[1][:-1]).split()) in ('{"a":1}', '{"a":2}')


def test_a_grammar_that_cannot_go_on_ends_its_job_with_an_error_and_no_other(engine):
    engine.add(with_grammar(1, DATE, logit_bias={}, min_tokens=39))
    engine.add(job(2, start=50, max_tokens=30))
    errors, tokens = {}, []
    while steps := engine.step():
        errors |= {step.job_id: step.error for step in steps if step.error}
        tokens += [step.token for step in steps if step.job_id == 2]
    assert list(errors) == [1]
    assert len(tokens) == 30


def test_what_vllm_itself_refuses_is_an_error_of_the_job_alone(engine):
    engine.add(job(1, logit_bias={10**6: 1.0}))
    (step,) = engine.step()
    assert "vLLM refuses" in step.error.message
    assert engine.step() == []


def test_a_prompt_longer_than_a_steps_tokens_is_computed_between_the_others_tokens(engine):
    engine.add(job(1, max_tokens=60))
    while not any(step.token is not None for step in engine.step()):
        pass
    engine.add(job(2, length=1000, start=50, max_tokens=1))
    others, ended = 0, False
    while not ended:
        steps = engine.step()
        ended = any(step.job_id == 2 for step in steps)
        others += sum(step.job_id == 1 for step in steps)
    assert others >= 1000 // 128 - 2
    while engine.step():
        pass


def test_the_logprobs_are_the_models_own_whatever_is_drawn_from(engine):
    def first(**sampling) -> tuple[int, object]:
        engine.add(job(1, max_tokens=1, logprobs=5, **sampling))
        (step,) = engine.step()
        return step.token, step.logprobs

    likeliest, plain = first(temperature=0.0)
    assert plain.drawn == plain.top[0][1] == max(logprob for _, logprob in plain.top)
    assert plain.top[0][0] == likeliest
    other, bent = first(temperature=0.0, logit_bias={likeliest: -100.0}, repetition_penalty=1.3)
    assert other != likeliest
    assert dict(bent.top) == pytest.approx(dict(plain.top), abs=1e-4)
    assert bent.drawn < plain.drawn


def test_a_step_that_waits_is_woken_for_a_new_job(engine):
    """A prompt of many steps is being computed; a command of another thread is not to wait for its end."""
    engine.add(job(1, length=CONTEXT - 20, max_tokens=1))
    waker = threading.Timer(0.2, engine.wake)
    waker.start()
    began = time.monotonic()
    assert engine.step() == []
    woken = time.monotonic() - began
    steps = engine.step()
    whole = time.monotonic() - began
    waker.join()
    assert [step.job_id for step in steps] == [1]
    assert woken < whole, "it came back while the prompt was not through"
    assert engine.step() == []


def test_a_step_that_is_about_to_wait_is_woken_too(engine):
    """The command may come after the engine thread has looked for one, and before it waits."""
    engine.add(job(1, length=CONTEXT - 20, start=50, max_tokens=1))
    engine.wake()
    assert engine.step() == []
    assert [step.job_id for step in engine.step()] == [1]
    assert engine.step() == []


def test_two_ranks_draw_what_one_does(engine, monkeypatch):
    """In two processes that share each layer."""
    place_threads_anew(monkeypatch)
    jobs = [job(1, temperature=0.0, max_tokens=20), job(2, start=50, seed=7, max_tokens=20), with_grammar(3, DATE)]
    alone = Run(engine, jobs)
    shared = load_engine(
        "vllm", options(model_path=str(hf_model("float32", kv_heads=4)), context_length=256, vllm={"tensor_parallel_size": 2})
    )
    workers = [process for process in vllms_processes() if "Worker_TP" in process.name()]
    try:
        jobs[2] = with_grammar(3, DATE)
        together = Run(shared, jobs)
    finally:
        shared.close()
    assert len(workers) == 2
    assert together.tokens == alone.tokens
    assert_gone(workers)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"device": "cuda"}, "DEVICE_TYPE=cuda"),
        ({"kv_type": "q8_0"}, "kv_cache_dtype"),
        ({"lora": ("one", "two")}, "one LoRA adapter"),
        ({"lora": ("nowhere",)}, "nowhere is no LoRA adapter"),
        ({"vllm": {"tensor_parallel_size": 2}}, "attention heads"),
        ({"vllm": {"pipeline_parallel_size": 2}}, "pipeline_parallel_size=2 with enforce_eager"),
        ({"vllm": {"quantization": "magic"}}, "magic"),
        ({"vllm": {"speculative_config": NGRAMS}}, "speculative_config"),
        ({"context_length": 10**6}, "max_model_len|max_position_embeddings"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name_before_anything_is_loaded(monkeypatch, given, told):
    monkeypatch.setattr("vllm.LLMEngine.__init__", lambda *given, **named: pytest.fail("it was loaded"))
    with pytest.raises(ModelLoadFailed, match=told):
        load_engine("vllm", options(**given))


def test_with_speculative_decoding_on_a_gpu_vllm_draws_itself_and_follows_grammars_itself(monkeypatch):
    from src.engines.vllm.arguments import engine_arguments
    from src.engines.vllm.parameters import Parameters

    monkeypatch.setattr("src.engines.vllm.arguments.current_platform", SimpleNamespace(device_type="cuda"))
    arguments = engine_arguments(options(vllm={"speculative_config": NGRAMS}))
    assert (arguments.logits_processors, arguments.skip_tokenizer_init) == (None, False)
    assert arguments.structured_outputs_config == {"backend": "guidance"}
    parameters = Parameters([2], reports=None)
    params = parameters.of(with_grammar(1, DATE, temperature=0.7, top_p=0.9, presence_penalty=0.5), 100)
    assert (params.temperature, params.top_p, params.presence_penalty) == (0.7, 0.9, 0.5)
    assert params.structured_outputs.grammar == DATE
    assert parameters.of(job(1, temperature=0.0), 100).temperature == 0
    begun = job(1, temperature=1.0)
    resumed = msgspec.structs.replace(begun, tokens=[*begun.tokens, 77])
    assert parameters.of(begun, 100).seed != parameters.of(resumed, 100).seed, "it would draw the same tokens once more"
    with pytest.raises(EngineError, match="speculative decoding"):
        parameters.of(with_grammar(3, DATE, known=[1589]), 100)


def test_on_a_cpu_vllm_still_mixes_up_temperatures_with_speculative_decoding():
    """The reason of the refusal. Once this fails, take both out."""
    import torch
    from vllm.platforms import current_platform
    from vllm.utils.cpu_triton_utils import _expand_kernel_impl

    current_platform.import_kernels()
    expanded = torch.zeros(2)
    _expand_kernel_impl(expanded, torch.tensor([0.7]), torch.tensor([2]), 0, 1)
    assert expanded.tolist() != pytest.approx([0.7, 0.7])


def test_a_core_that_dies_is_the_death_of_the_engine_and_leaves_nothing():
    known = vllms_processes()
    engine = load_engine("vllm", options(context_length=256))
    family = [process for process in vllms_processes() if process not in known]
    core = next(process for process in family if "EngineCor" in process.name())
    engine.add(job(1, max_tokens=200))
    engine.step()
    os.kill(core.pid, signal.SIGKILL)
    with pytest.raises(EngineDead, match="core has died"):
        step_on(engine)
    engine.close()
    assert_gone(family)
