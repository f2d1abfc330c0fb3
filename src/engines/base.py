"""The engine contract: tokens in, tokens out. Knows nothing of text, chat or HTTP."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any, Protocol

import msgspec

from src.errors import EngineError
from src.sampling import SamplingParams


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is told when it loads a model. 0 leaves a number to the engine."""

    model_path: str
    device: str = "auto"  # auto, cpu, cuda, mps
    context_length: int = 0  # tokens of one job, prompt and completion
    max_sequences: int = 0  # jobs advanced in one step
    cached_prefixes: int = 0  # finished sequences whose KV cells are kept for reuse
    threads: int = 0
    memory_bytes: int = 0  # free memory the engine may plan with
    memory_fraction: float = 0.8  # of the memory MLX may use
    step_time_target: float = 0.0  # seconds a step may take while jobs wait for their next token
    kv_type: str = "auto"  # how the KV cache is stored: auto (the engine's choice), f16, q8_0
    lora: tuple[str, ...] = ()  # files of LoRA adapters (folders for vLLM), all applied
    adapters: dict[str, str] = {}  # folders of further ones by name: a job names the one that it wants applied
    vllm: dict[str, Any] = {}  # settings of vLLM by its own names
    step_delay: float = 0.0  # seconds an echo step takes
    fault: str = ""  # of the echo engine: crash, kill or stall, and the text on which


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


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence the engine works on.

    `tokens` is all that precedes the next token to be drawn; the first `prompt_tokens` of them are the prompt.
    """

    id: int
    tokens: list[int]
    prompt_tokens: int
    max_tokens: int  # completion tokens still to be drawn, at least 1
    sampling: SamplingParams
    grammar: Grammar | None = None
    adapter: str = ""  # one of the options' adapters
    key: str = ""  # whose job it is: places are shared out fairly between keys


class Logprobs(msgspec.Struct, frozen=True):
    """Natural logarithms of the model's own probabilities, before temperature, penalties, biases and grammar."""

    drawn: float
    top: list[tuple[int, float]]  # (token, logprob) of the likeliest, in order


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine step did for one job.

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


class Engine(ABC):
    """Tokens in, tokens out. Not thread-safe: EngineLoop's thread makes it, calls it and closes it."""

    context_length: int  # longest prompt + completion of one job, in tokens
    device: str  # what it runs on, for people: "cpu", "cuda: NVIDIA H100"
    embedding_length: int = 0  # numbers of an input's vector; 0: this model cannot embed
    generates: bool = True  # False: it can do nothing else, and takes no jobs

    @abstractmethod
    def add(self, job: Job) -> None:
        """Queue a job; never blocks. Raises EngineError when this job can never run here."""

    @abstractmethod
    def cancel(self, job_id: int) -> None:
        """Forget a job and free its memory. Unknown or finished ids are ignored."""

    @abstractmethod
    def step(self) -> list[Step]:
        """Advance every job. [] only when there is none, or when woken. Raises EngineDead when no job can go on."""

    def wake(self) -> None:  # noqa: B027 (most engines compute in their step, which cannot be cut short)
        """By any thread, which has a job to add or to cancel: a step that only waits for others returns."""

    def embed(self, inputs: list[list[int]]) -> Generator[list[float] | None, None, None]:
        """The inputs' vectors, in their order and of any length. Only where `embedding_length` is not 0.

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


LoadEngine = Callable[[EngineOptions], Engine]  # what every engine module offers as `load`
