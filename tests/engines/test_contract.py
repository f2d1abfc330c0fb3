"""The engine contract, once for every engine installed here. A claim holds for all of them or it is no contract."""

import math

import msgspec
import pytest

from src.engines import engine_options, load_engine, why_not
from src.engines.base import Job
from src.errors import EngineError
from src.sampling import SamplingParams
from tests.support.hf_model import hf_model

ENGINES = ["echo", "llama_cpp", "mlx", "vllm"]
COMPUTING = ["llama_cpp", "mlx", "vllm"]  # those that run a model: echo draws nothing, repeats by design and has nothing to cache
# A GPU sums in another order, with kernels by the size of a batch: what is equal to the last bit on a CPU is not there. For vLLM the
# device is a matter of what is installed.
EXACT = {"echo": {}, "llama_cpp": {"device": "cpu"}, "mlx": {"device": "cpu"}, "vllm": {}}
CONTEXT = 512
SLOTS = 20
# With 16 bits a prompt's logits are not those of tokens that came one by one: a resumed job would not draw the same. Compiling
# takes a minute each time.
VLLM = {"dtype": "float32", "enforce_eager": True}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, model_path):
    if reason := why_not(request.param):
        pytest.skip(reason)
    path = hf_model("float32") if request.param in ("mlx", "vllm") else model_path
    fields = {"model_path": str(path), "context_length": CONTEXT, "max_sequences": SLOTS, "cached_prefixes": 4, "threads": 1, "vllm": VLLM}
    loaded = load_engine(request.param, engine_options(request.param, fields | EXACT[request.param]))
    yield loaded
    loaded.close()


@pytest.fixture(autouse=True)
def idle_again(engine):
    """Every test leaves the engine without a job."""
    yield
    assert engine.step() == []
    assert (engine.stats().running, engine.stats().waiting, engine.stats().kv_used) == (0, 0, 0)


def job(id: int, *, length: int = 12, max_tokens: int = 8, start: int = 40, **sampling) -> Job:
    """A prompt of ids that are a plain token in every vocabulary, other ones for other starts."""
    tokens = [start + (index * 7) % 60 for index in range(length)]
    sampling.setdefault("seed", id)
    sampling.setdefault("ignore_eos", True)
    return Job(id=id, tokens=tokens, prompt_tokens=length, max_tokens=max_tokens, sampling=SamplingParams(**sampling))


END = {"echo": 256, "llama_cpp": 2, "mlx": 2, "vllm": 2}  # a token that ends an answer
VOCABULARY = {"echo": 264, "llama_cpp": 49_152, "mlx": 49_152, "vllm": 49_152}


@pytest.fixture
def end(request):
    return END[request.node.callspec.params["engine"]]


class Rails:
    """A grammar that allows these tokens at each place, and then an end token alone."""

    def __init__(self, places: list[set[int]], end: int, at: int = 0, fails_at: int | None = None) -> None:
        sets = (",".join(map(str, sorted(place))) for place in places)
        self.source = "start: " + " ".join(f"<[{tokens}]>" for tokens in sets)  # as llguidance writes token ids
        self._places, self._at, self._fails_at = [*places, {end}], at, fails_at
        # For engines that follow it themselves. They cannot fail at will: there it allows what `accept` does not.
        followed = [{100} if place == fails_at else tokens for place, tokens in enumerate(places)]
        self.source = "start: " + " ".join(f"<{sorted(tokens)}>".replace(" ", "") for tokens in followed)

    def allowed(self) -> bytes:
        if self._at == self._fails_at:
            raise EngineError("too complex")
        mask = bytearray(max(VOCABULARY.values()) // 8)
        for token in self._places[self._at]:
            mask[token // 8] |= 1 << token % 8
        return bytes(mask)

    def accept(self, token: int) -> None:
        if self._at == self._fails_at:
            raise EngineError("too complex")
        if token not in self._places[self._at]:
            raise EngineError(f"{token} is not allowed at {self._at}")
        self._at += 1


def on_rails(grammar: Rails, id: int = 1, **fields) -> Job:
    return msgspec.structs.replace(job(id, **{"max_tokens": 20, "ignore_eos": False, **fields}), grammar=grammar)


class Run:
    """The steps of some jobs, till all are through."""

    def __init__(self, engine, jobs, cancel_at: dict[int, int] | None = None) -> None:
        self.tokens = {job.id: [] for job in jobs}
        self.finish, self.cached, self.order, self.errors = {}, {}, [], {}
        self.logprobs = {job.id: [] for job in jobs}
        for job in jobs:
            engine.add(job)
        count = 0
        while steps := engine.step():
            count += 1
            for step in steps:
                assert step.job_id in self.tokens, "a step for a job that is not there"
                assert step.job_id not in self.finish, "a step after the last"
                if step.job_id not in self.cached:
                    assert step.cached_tokens is not None, "the first step tells what was cached"
                    self.cached[step.job_id] = step.cached_tokens
                if step.token is not None:
                    self.tokens[step.job_id].append(step.token)
                    self.order.append(step.job_id)
                    self.logprobs[step.job_id].append(step.logprobs)
                if step.error:
                    self.errors[step.job_id] = self.finish[step.job_id] = step.error
                if step.finish:
                    self.finish[step.job_id] = step.finish
            for id, at in (cancel_at or {}).items():
                if count == at:
                    engine.cancel(id)
        self.steps = count


def test_a_job_draws_as_many_tokens_as_asked_for_and_ends_with_length(engine):
    run = Run(engine, [job(1, max_tokens=10)])
    assert len(run.tokens[1]) == 10
    assert run.finish[1] == "length"


def test_one_token_can_be_asked_for(engine):
    run = Run(engine, [job(1, max_tokens=1)])
    assert len(run.tokens[1]) == 1
    assert run.finish[1] == "length"


def test_a_job_ends_with_length_where_the_context_ends(engine):
    run = Run(engine, [job(1, length=CONTEXT - 5, max_tokens=100)])
    assert len(run.tokens[1]) == 5
    assert run.finish[1] == "length"


@pytest.mark.parametrize(
    "tokens", [[], [40] * CONTEXT, [40, -1], [40, 2**31 - 1]], ids=["none", "as many as the context", "negative", "beyond the vocabulary"]
)
def test_what_the_runner_has_to_refuse_is_never_computed(engine, tokens):
    """A library would abort the process."""
    with pytest.raises(AssertionError):
        engine.add(Job(id=1, tokens=tokens, prompt_tokens=len(tokens), max_tokens=1, sampling=SamplingParams(seed=1)))


def test_it_says_what_it_can_do_with_the_loaded_model(engine):
    assert engine.features <= {"generation", "embeddings"}
    assert ("embeddings" in engine.features) == (engine.embedding_length > 0)


def test_twenty_jobs_run_together_and_each_is_complete(engine):
    run = Run(engine, [job(id, start=40 + id, max_tokens=12) for id in range(20)])
    assert all(len(tokens) == 12 for tokens in run.tokens.values())
    assert set(run.finish.values()) == {"length"}
    assert run.steps < 20 * 12, "the jobs were run one after another"


def test_more_jobs_than_slots_wait_and_all_are_served(engine):
    run = Run(engine, [job(id, start=40 + id, max_tokens=3) for id in range(2 * SLOTS + 3)])
    assert all(len(tokens) == 3 for tokens in run.tokens.values())


def test_a_job_that_comes_later_joins_while_others_decode(engine):
    engine.add(job(1, max_tokens=40))
    for _ in range(5):
        engine.step()
    engine.add(job(2, start=50, max_tokens=3))
    seen = []
    while steps := engine.step():
        seen.append({step.job_id for step in steps})
    assert any(ids == {1, 2} for ids in seen)
    assert 2 not in seen[-1], "the short job waited for the long one"


@pytest.mark.parametrize("engine", ["llama_cpp", "mlx"], indirect=True)  # echo has no prefill, vLLM does not tell of its steps
def test_a_long_prompt_does_not_keep_others_from_their_next_token(engine):
    engine.add(job(1, max_tokens=60))
    while not any(step.token is not None for step in engine.step()):
        pass
    engine.add(job(2, length=CONTEXT - 10, start=50, max_tokens=2))
    together, running = 0, True
    while steps := engine.step():
        if running and any(step.job_id == 2 and step.token is None for step in steps):  # a slow machine takes smaller pieces
            assert any(step.job_id == 1 and step.token is not None for step in steps)
            together += 1
        running = running and not any(step.job_id == 1 and step.finish for step in steps)
    assert together > 1


def test_a_seeded_job_draws_the_same_tokens_again(engine):
    first = Run(engine, [job(1, seed=7, temperature=1.0, max_tokens=16)])
    second = Run(engine, [job(2, seed=7, temperature=1.0, max_tokens=16)])
    assert first.tokens[1] == second.tokens[2]


@pytest.mark.parametrize("engine", COMPUTING, indirect=True)
def test_other_seeds_draw_other_tokens(engine):
    drawn = {tuple(Run(engine, [job(1, seed=seed, temperature=1.5, max_tokens=12)]).tokens[1]) for seed in range(5)}
    assert len(drawn) == 5


def test_a_seeded_job_among_nineteen_others_is_complete(engine):
    others = [job(id, start=40 + id, temperature=1.2, max_tokens=16) for id in range(2, 21)]
    run = Run(engine, [job(1, seed=7, temperature=1.0, max_tokens=16), *others])
    assert len(run.tokens[1]) == 16
    assert run.finish[1] == "length"


def test_a_job_resumed_from_its_own_tokens_goes_on_with_the_same_ones(engine):
    whole = Run(engine, [job(1, seed=3, temperature=1.0, max_tokens=20, presence_penalty=0.5, repetition_penalty=1.1)]).tokens[1]
    first = job(2, seed=3, temperature=1.0, presence_penalty=0.5, repetition_penalty=1.1)
    rest = Job(id=2, tokens=first.tokens + whole[:9], prompt_tokens=12, max_tokens=11, sampling=first.sampling)
    assert Run(engine, [rest]).tokens[2] == whole[9:]


def test_temperature_zero_is_greedy_whatever_the_seed(engine):
    drawn = {tuple(Run(engine, [job(1, seed=seed, temperature=0.0, max_tokens=12)]).tokens[1]) for seed in range(3)}
    assert len(drawn) == 1


def test_top_k_one_is_greedy(engine):
    greedy = Run(engine, [job(1, temperature=0.0, max_tokens=8)]).tokens[1]
    assert Run(engine, [job(1, temperature=1.5, top_k=1, max_tokens=8)]).tokens[1] == greedy


def test_top_p_zero_is_greedy(engine):
    greedy = Run(engine, [job(1, temperature=0.0, max_tokens=8)]).tokens[1]
    assert Run(engine, [job(1, temperature=1.5, top_p=0.0, max_tokens=8)]).tokens[1] == greedy


def test_min_p_one_is_greedy(engine):
    greedy = Run(engine, [job(1, temperature=0.0, max_tokens=8)]).tokens[1]
    assert Run(engine, [job(1, temperature=1.5, min_p=1.0, max_tokens=8)]).tokens[1] == greedy


@pytest.mark.parametrize("engine", COMPUTING, indirect=True)
def test_penalties_make_repetition_rarer(engine):
    plain = Run(engine, [job(1, temperature=0.0, max_tokens=60)]).tokens[1]
    for penalty in ({"repetition_penalty": 1.5}, {"presence_penalty": 2.0}, {"frequency_penalty": 2.0}):
        punished = Run(engine, [job(1, temperature=0.0, max_tokens=60, **penalty)]).tokens[1]
        assert len(set(punished)) > len(set(plain)), penalty


def test_a_cancelled_job_says_nothing_more_and_frees_its_memory_at_once(engine):
    engine.add(job(1, max_tokens=100))
    engine.add(job(2, start=50, max_tokens=6))
    engine.step()
    engine.cancel(1)
    assert engine.stats().running == 1
    while steps := engine.step():
        assert {step.job_id for step in steps} == {2}


def test_a_waiting_job_can_be_cancelled(engine):
    jobs = [job(id, start=40 + id, max_tokens=4) for id in range(SLOTS + 2)]
    run = Run(engine, jobs, cancel_at={SLOTS + 1: 1})
    assert run.tokens[SLOTS + 1] == []
    assert len(run.finish) == SLOTS + 1


def test_a_job_can_be_cancelled_in_its_prefill(engine):
    engine.add(job(1, max_tokens=50))
    engine.step()
    engine.add(job(2, length=CONTEXT - 10, start=50))
    engine.step()
    engine.cancel(2)
    while steps := engine.step():
        assert {step.job_id for step in steps} == {1}


def test_cancelling_an_unknown_job_does_nothing(engine):
    engine.cancel(12345)


def test_stats_count_what_was_generated(engine):
    before = engine.stats().generated
    Run(engine, [job(1, max_tokens=9), job(2, start=50, max_tokens=4)])
    assert engine.stats().generated - before == 13


@pytest.mark.parametrize("engine", COMPUTING, indirect=True)
def test_a_prompt_seen_before_is_answered_the_same_and_mostly_from_the_cache(engine, request):
    first = Run(engine, [job(1, length=200, start=43, temperature=0.0, max_tokens=16)])
    second = Run(engine, [job(2, length=200, start=43, temperature=0.0, max_tokens=16)])
    assert first.tokens[1] == second.tokens[2]
    unit = 32 if "vllm" in request.node.callspec.id else 1  # vLLM finds whole blocks
    assert second.cached[2] == 199 - 199 % unit, "all but the token whose logits are needed"


@pytest.mark.parametrize("engine", COMPUTING, indirect=True)
def test_a_prefix_is_found_within_its_scope_alone(engine):
    def scoped(id: int, scope: str) -> Job:
        return msgspec.structs.replace(job(id, length=200, start=47, temperature=0.0, max_tokens=16), scope=scope)

    first = Run(engine, [scoped(1, "a")])
    other = Run(engine, [scoped(2, "b")])
    together = Run(engine, [scoped(3, "c"), scoped(4, "")])
    again = Run(engine, [scoped(5, "a")])
    assert other.cached == {2: 0}
    assert together.cached == {3: 0, 4: 0}, "neither from those that have ended nor from one another"
    assert again.cached[5] >= 160
    assert first.tokens[1] == other.tokens[2] == again.tokens[5]


def test_logprobs_come_with_every_token_of_the_jobs_that_want_them(engine):
    run = Run(engine, [job(1, max_tokens=6, logprobs=0), job(2, start=50, max_tokens=6)])
    assert [len(run.logprobs[1]), None in run.logprobs[1]] == [6, False]
    assert all(one.top == [] and one.drawn <= 0 for one in run.logprobs[1])
    assert run.logprobs[2] == [None] * 6


@pytest.mark.parametrize("engine", COMPUTING, indirect=True)
def test_logprobs_are_those_of_a_distribution_and_greedy_takes_the_first(engine):
    run = Run(engine, [job(1, temperature=0.0, max_tokens=4, logprobs=49_151), job(2, temperature=1.2, max_tokens=4, logprobs=20)])
    for token, one in zip(run.tokens[1], run.logprobs[1], strict=True):
        values = [logprob for _, logprob in one.top]
        assert one.top[0] == (token, one.drawn)
        assert values == sorted(values, reverse=True)
        assert len({token for token, _ in one.top}) == 49_151
        assert math.isclose(sum(math.exp(value) for value in values), 1, abs_tol=1e-3)
    for token, one in zip(run.tokens[2], run.logprobs[2], strict=True):
        assert len(one.top) == 20
        assert one.drawn == pytest.approx(dict(one.top)[token]) if token in dict(one.top) else one.drawn <= one.top[-1][1]


@pytest.mark.parametrize("engine", COMPUTING, indirect=True)
def test_logprobs_are_the_models_own_whatever_bends_the_draw(engine, end):
    def first(job: Job):
        return Run(engine, [job]).logprobs[1][0].top

    plain = first(job(1, max_tokens=1, logprobs=5))
    for rules in (
        {"temperature": 0.3},
        {"logit_bias": {plain[0][0]: -100.0}},
        {"repetition_penalty": 1.9},
        {"min_tokens": 3},
        {"top_k": 2},
    ):
        bent = first(job(1, max_tokens=1, logprobs=5, **rules))
        assert [token for token, _ in bent] == [token for token, _ in plain], rules
        assert [logprob for _, logprob in bent] == pytest.approx([logprob for _, logprob in plain], abs=1e-3), rules
    railed = first(on_rails(Rails([{61}], end), max_tokens=1, logprobs=5))
    assert [token for token, _ in railed] == [token for token, _ in plain]


@pytest.mark.parametrize("engine", COMPUTING, indirect=True)
def test_a_bias_forces_a_token_or_forbids_it(engine):
    forced = Run(engine, [job(1, max_tokens=5, logit_bias={77: 100.0})]).tokens[1]
    assert forced == [77] * 5
    greedy = Run(engine, [job(1, temperature=0.0, max_tokens=8)]).tokens[1]
    without = Run(engine, [job(1, temperature=0.0, max_tokens=8, logit_bias={greedy[2]: -100.0})]).tokens[1]
    assert greedy[2] not in without
    assert len(without) == 8


@pytest.mark.parametrize("engine", COMPUTING, indirect=True)
def test_a_bias_is_its_own_jobs_alone(engine):
    alone = Run(engine, [job(1, temperature=0.0)]).tokens[1]
    together = Run(engine, [job(1, temperature=0.0), job(2, max_tokens=4, logit_bias={77: 100.0})])
    assert together.tokens == {1: alone, 2: [77] * 4}


@pytest.mark.parametrize("engine", COMPUTING, indirect=True)
def test_an_answer_cannot_end_before_min_tokens(engine, end):
    eager = {"ignore_eos": False, "logit_bias": {end: 100.0}, "max_tokens": 20}
    assert Run(engine, [job(1, **eager)]).tokens[1] == [end]
    run = Run(engine, [job(1, **eager, min_tokens=5)])
    assert len(run.tokens[1]) == 6
    assert run.tokens[1].index(end) == 5
    assert run.finish[1] == "stop"


def test_a_stop_token_ends_the_answer_and_no_other_ones(engine):
    plain = Run(engine, [job(1, temperature=0.0, max_tokens=10)]).tokens[1]
    place = plain.index(plain[4])
    run = Run(engine, [job(1, temperature=0.0, max_tokens=10, stop_tokens=[plain[4]]), job(2, temperature=0.0, max_tokens=10)])
    assert run.tokens == {1: plain[: place + 1], 2: plain}
    assert run.finish == {1: "stop", 2: "length"}


@pytest.mark.parametrize("engine", COMPUTING, indirect=True)
def test_min_tokens_keep_stop_tokens_back_too(engine):
    run = Run(engine, [job(1, max_tokens=10, logit_bias={77: 100.0}, stop_tokens=[77], min_tokens=3)])
    assert len(run.tokens[1]) == 4
    assert run.tokens[1].index(77) == 3


def test_a_job_with_a_grammar_draws_only_what_it_allows_and_ends_where_it_must(engine, end):
    places = [{60 + index, 70 + index, 80 + index} for index in range(8)]
    run = Run(engine, [on_rails(Rails(places, end), temperature=1.5)])
    assert not run.errors
    assert len(run.tokens[1]) == 9
    assert all(token in place for token, place in zip(run.tokens[1], [*places, {end}], strict=True))
    assert run.finish[1] == "stop"


def test_an_answer_cannot_end_where_its_grammar_does_not(engine, end):
    eager = {"logit_bias": {end: 100.0}, "temperature": 0.0}
    assert len(Run(engine, [on_rails(Rails([{60}, {61}, {62}], end), **eager)]).tokens[1]) == 4


def test_a_grammar_is_its_own_jobs_alone(engine, end):
    alone = Run(engine, [job(1, temperature=0.0), job(2, start=50, temperature=0.0)])
    places = [{60 + index} for index in range(6)]
    others = [on_rails(Rails(places, end), id=id, start=40 + id) for id in (3, 4)]
    run = Run(engine, [others[0], job(1, temperature=0.0), others[1], job(2, start=50, temperature=0.0)])
    assert {id: run.tokens[id] for id in (1, 2)} == alone.tokens
    assert run.tokens[3] == run.tokens[4] == [60, 61, 62, 63, 64, 65, end]


def test_a_job_resumed_with_its_grammar_goes_on_with_the_same_tokens(engine, end):
    places = [set(range(60 + index, 90 + index)) for index in range(12)]
    whole = Run(engine, [on_rails(Rails(places, end), seed=5, temperature=1.5)]).tokens[1]
    assert len(whole) == 13
    first = on_rails(Rails(places, end, at=7), seed=5, temperature=1.5)
    rest = msgspec.structs.replace(first, tokens=first.tokens + whole[:7], max_tokens=13)
    assert Run(engine, [rest]).tokens[1] == whole[7:]


@pytest.mark.parametrize("fails_at", [0, 3])
def test_a_grammar_that_fails_fails_its_job_alone(engine, end, fails_at):
    run = Run(engine, [on_rails(Rails([{60}] * 8, end, fails_at=fails_at)), job(2, start=50, max_tokens=10)])
    assert set(run.errors) == {1}
    assert len(run.tokens[1]) <= fails_at
    assert len(run.tokens[2]) == 10
