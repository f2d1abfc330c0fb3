"""The engine contract: tokens in, tokens out. Knows nothing of text, chat or HTTP."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Literal, Protocol

import msgspec

from src.errors import EngineError
from src.sampling import SamplingParams

# What an engine, or a model that it has loaded, can do.
Feature = Literal[
    "generation",
    "embeddings",  # with models made for them
    "mean_embeddings",  # with models made for text: the mean of their hidden states
    "lora",  # adapters that apply to every answer
    "adapters",  # of which each job names one
    "kv_quantised",  # a KV cache of type q8_0
    "speculation",  # drafts that are checked several tokens at once
]


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What every engine is told when it loads a model. Each has its own options, a subclass of this, in the registry."""

    model_path: str
    device: str = "auto"  # auto, cpu, cuda, mps
    context_length: int  # tokens of one job, prompt and completion; a model that was trained for fewer has fewer
    max_sequences: int | None  # jobs advanced in one step; None: as many as an engine that manages the device's memory has room for
    context_is_open: bool = False  # the operator set none: an engine whose device has less room than was planned with takes fewer tokens
    sequences_are_open: bool = False  # likewise
    cached_prefixes: int = 0  # finished sequences whose KV cells are kept for reuse
    threads: int = 0  # 0: the library's default
    memory_bytes: int = 0  # free memory that the plan was made for; 0: unknown
    step_time_target: float = 0.0  # seconds a step may take while jobs wait for their next token; 0: by the device


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine takes of a machine beside its models' weights and caches, for the manager's plan.

    The default was measured with llama.cpp on a CPU: the interpreter and libraries.
    """

    process_bytes: int = 192 * 2**20
    copies: int = 1  # of a model, each with sequences of its own


class Grammar(Protocol):
    """What one job may draw, token by token; it has taken in the job's completion so far. For one thread at a time.

    An engine either asks `allowed` before each draw and tells it what was drawn, or has its library follow `source`.
    """

    source: str  # llguidance's form of it, Lark or JSON

    def allowed(self) -> bytes:
        """A bit for each token of the vocabulary, the lowest of a byte first. An end token is allowed where the answer may end.

        Raises EngineError where the grammar has become too large to follow.
        """

    def accept(self, token: int) -> None:
        """Go on behind a token. Raises EngineError for one that was not allowed."""

    def behind(self, completion: list[int]) -> "Grammar":
        """The same grammar, for a job that goes on behind this completion. Raises EngineError where it was not allowed."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence the engine works on.

    `tokens` is all that precedes the next token to be drawn, fewer than the context holds, each below `Engine.vocab_size`;
    the first `prompt_tokens` of them are the prompt.
    """

    id: int
    tokens: list[int]
    prompt_tokens: int
    max_tokens: int  # completion tokens still to be drawn, at least 1
    sampling: SamplingParams
    grammar: Grammar | None = None
    adapter: str = ""  # one of the options' adapters
    key: str = ""  # whose job it is: places are shared out fairly between keys
    set_aside: bool = False  # it has run before, and comes first of its key's
    scope: str = ""  # prefixes are reused within one scope only: what computes their cells otherwise, an adapter, is part of it


class Logprobs(msgspec.Struct, frozen=True):
    """Natural logarithms of the model's own probabilities, before temperature, penalties, biases and grammar."""

    drawn: float
    top: list[tuple[int, float]]  # (token, logprob) of the likeliest, in order


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine step did for one job. Several steps of one job, in order, where several tokens were decided at once.

    The first step of a job carries `cached_tokens` (prompt tokens that were not computed anew). While its prompt is
    being computed, `token` is None. The last step carries `finish` or `error`.
    """

    job_id: int
    token: int | None = None
    cached_tokens: int | None = None
    logprobs: Logprobs | None = None  # of the token, where the job wants them
    finish: str | None = None  # "stop": a token was drawn that ends the completion; "length": max_tokens or the context is used up
    error: EngineError | None = None


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. `kv_*` count tokens; all that is not of this moment counts since the engine was loaded."""

    running: int = 0
    waiting: int = 0
    slots: int = 0
    kv_used: int = 0
    kv_total: int = 0
    longest_wait: float = 0.0  # seconds, of the jobs that wait now
    admitted: int = 0  # jobs that got a place
    waited_seconds: float = 0.0  # all of these together, until they got it
    prefix_hit: int = 0  # prompt tokens found computed
    prefix_asked: int = 0  # prompt tokens of all jobs admitted
    generated: int = 0  # completion tokens
    compute_seconds: float = 0.0  # in the library's forward pass
    prefix_copies: int = 0  # prefixes copied from another sequence rather than computed
    moves: int = 0  # running sequences moved next to the others


class KVCacheChoice(msgspec.Struct, frozen=True, kw_only=True):
    """How the KV cache is stored, and why."""

    type: str
    measured_seconds: dict[str, float] = {}  # that one layer took here for a request of average length, by type


class Engine(ABC):
    """Tokens in, tokens out. Not thread-safe: EngineLoop's thread makes it, calls it and closes it."""

    features: frozenset[Feature] = frozenset({"generation"})  # of the loaded model; without generation it takes no jobs
    context_length: int  # longest prompt + completion of one job, in tokens
    vocab_size: int  # every token of a job or an input is below it
    device: str  # what it runs on, for people: "cpu", "cuda: NVIDIA H100"
    resumes: bool = True  # a job that is added again behind its own tokens goes on with those it would have drawn
    embedding_length: int = 0  # numbers of an input's vector; 0: this model cannot embed
    kv_cache: KVCacheChoice | None = None  # where the engine has a choice

    @abstractmethod
    def add(self, job: Job) -> None:
        """Queue a job; never blocks. Raises EngineError when this job can never run here, for want of its adapter, say."""

    def _assert_fits(self, job: Job) -> None:
        """What `add` may expect: the runner has checked it."""
        assert 0 < len(job.tokens) < self.context_length
        assert min(job.tokens) >= 0 and max(job.tokens) < self.vocab_size

    @abstractmethod
    def cancel(self, job_id: int) -> None:
        """Forget a job and free its memory. Unknown or finished ids are ignored."""

    @abstractmethod
    def step(self) -> list[Step]:
        """Advance every job. [] only when there is none, or when woken. Raises EngineDead when no job can go on."""

    def wake(self) -> None:  # noqa: B027 (most engines compute in their step, which cannot be cut short)
        """By any thread, which has a job to add or to cancel: a step that only waits for others returns."""

    def embed(self, inputs: list[list[int]]) -> Generator[list[float] | None, None, None]:
        """The inputs' vectors, in their order and of any length. Only where `embedding_length` is not 0. Inputs have one token
        at least and as many as the context holds at most.

        A call of next() is one piece of work, no longer than running jobs may be kept waiting: None where it did not
        complete a vector. Steps may come between pieces, a piece of another such iterator only after a vector; closing it
        frees what it holds. Raises EngineError at the first next() when these inputs cannot be embedded here.
        """
        raise NotImplementedError

    @abstractmethod
    def stats(self) -> EngineStats: ...

    @abstractmethod
    def close(self) -> None:
        """Give all memory back. The engine is of no use afterwards."""
