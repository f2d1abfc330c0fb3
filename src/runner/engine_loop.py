"""The engine thread: takes jobs from the asyncio thread, steps the engine, posts what each step produced. Knows no text."""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec
from loguru import logger

from src.engines.base import Engine, EngineStats, Job, Step
from src.errors import EngineError
from src.runner.embedding_queue import EmbeddingQueue, Vector
from src.runner.preemption import Preemption
from src.runner.validity import Validity

RATE_WINDOW = 10.0  # seconds over which tokens per second are averaged
UNREAD = 32_768  # steps and logprobs in a mailbox (some 3 MB), from which on its jobs are set aside until half of them are read
TOGETHER = 4096  # of them are taken at a time: they become one message to the gateway
LAST_WORDS = 0.5  # seconds in which the last requests hear why they failed, before the process ends


class Mailbox:
    """Steps of a request's jobs, on their way from the engine to it. Steps that wait are taken together."""

    def __init__(self) -> None:
        self.admitted_at: float | None = None  # when the first step that worked on a job began, in time.monotonic() seconds
        self.held_back: set[int] = set()  # jobs that are set aside, for nobody reads what they draw
        self.on_room: Callable[[set[int]], None] = lambda job_ids: None  # called with these once they may go on
        self._steps: deque[Step] = deque()
        self._unread = 0
        self._arrived = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return self._unread >= UNREAD

    def put(self, step: Step, began: float) -> None:
        if self.admitted_at is None:
            self.admitted_at = began
        self._steps.append(step)
        self._unread += _size(step)
        self._arrived.set()

    async def take(self) -> list[Step]:
        """The steps that wait, at least one."""
        await self._arrived.wait()
        steps = [self._steps.popleft()]
        size = _size(steps[0])
        while self._steps and size < TOGETHER:
            steps.append(self._steps.popleft())
            size += _size(steps[-1])
        self._unread -= size
        if not self._steps:
            self._arrived.clear()
        if self.held_back and self._unread <= UNREAD // 2:
            held, self.held_back = self.held_back, set()
            self.on_room(held)
        return steps


def _size(step: Step) -> int:
    return 1 if step.logprobs is None else 2 + len(step.logprobs.top)


class _Add(msgspec.Struct):
    job: Job


class _Embed(msgspec.Struct):
    request_id: int
    inputs: list[list[int]]
    key: str


class _Cancel(msgspec.Struct):
    job_id: int


class _HoldBack(msgspec.Struct):
    job_id: int


class _GoOn(msgspec.Struct):
    job_id: int


class _Close(msgspec.Struct):
    pass


_Command = _Add | _Embed | _Cancel | _HoldBack | _GoOn


class EngineLoop:
    """Owns the engine and its thread. Every public method is for the asyncio thread; only _run touches the engine."""

    def __init__(self, load: Callable[[], Engine], on_death: Callable[[], None], on_no_numbers: Callable[[], None] = lambda: None) -> None:
        """`on_death` is called in the engine thread after it has logged why the engine cannot go on, `on_no_numbers` in the other
        one when what the engine computes cannot be believed any more."""
        self._load = load
        self._on_death, self._on_no_numbers = on_death, on_no_numbers
        self.validity = Validity()
        self._commands: queue.SimpleQueue[_Command | _Close] = queue.SimpleQueue()
        self._mailboxes: dict[int, Mailbox] = {}
        self._vectors: dict[int, asyncio.Queue[Vector]] = {}
        self._embedding_queue = EmbeddingQueue()
        self._preemption = Preemption()
        self._next_id = 0
        self._stats = EngineStats()
        self.steps = 0
        self.busy_seconds = 0.0  # of the engine thread: steps and all that is done between them
        self._step_began: float | None = None  # monotonic seconds; None while the engine has nothing to do
        self._rate: deque[tuple[float, int]] = deque()  # (monotonic seconds, tokens generated till then)
        self._wake: Callable[[], None] = lambda: None  # till there is an engine
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    async def start(self) -> Engine:
        """Load the engine in its thread. Returns it for its constants alone. Raises what the load raises."""
        self._asyncio = asyncio.get_running_loop()
        self._loaded: asyncio.Future[Engine] = self._asyncio.create_future()
        self._thread.start()
        engine = await self._loaded
        self._wake = engine.wake
        return engine

    def submit(self, make_job: Callable[[int], Job], mailbox: Mailbox) -> int:
        """Queue the job that `make_job` makes for a fresh id, which is returned; its steps come to the mailbox."""
        self._next_id += 1
        job = make_job(self._next_id)
        self._mailboxes[job.id] = mailbox
        mailbox.on_room = self._go_on
        self._commands.put(_Add(job))
        self._wake()
        return job.id

    def embed(self, inputs: list[list[int]], vectors: "asyncio.Queue[Vector]", key: str = "") -> int:
        """Queue inputs to be embedded for a key, under a fresh id, which is returned; their vectors come to the queue in order."""
        self._next_id += 1
        self._vectors[self._next_id] = vectors
        self._commands.put(_Embed(self._next_id, inputs, key))
        self._wake()
        return self._next_id

    def cancel(self, job_id: int, *, answered: bool = False) -> None:
        """Forget a job, or inputs. Of finished ones only their mailbox is left to forget. `answered`: its answer is whole."""
        if answered and (mailbox := self._mailboxes.get(job_id)):
            self.validity.note(mailbox, None)
        if self._mailboxes.pop(job_id, None) is not None or self._vectors.pop(job_id, None) is not None:
            self._commands.put(_Cancel(job_id))
            self._wake()

    def stats(self) -> EngineStats:
        """The engine's numbers after its last step."""
        return self._stats

    def preempted(self) -> int:
        """Jobs that were set aside for another key's since the engine was loaded."""
        return self._preemption.count

    def tokens_per_second(self) -> float:
        now = time.monotonic()
        recent = [(at, count) for at, count in list(self._rate) if now - at <= RATE_WINDOW]
        return (self._stats.generated - recent[0][1]) / (now - recent[0][0]) if recent and now > recent[0][0] else 0.0

    def step_age(self) -> float:
        """Seconds since the step that is being computed began; 0 where none is."""
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    def close(self) -> None:
        """Close the engine and wait for its thread."""
        self._commands.put(_Close())
        self._wake()
        self._thread.join()

    def _run(self) -> None:
        try:
            engine = self._load()
        except Exception as error:  # whatever it is, the load failed: it is raised where start() waits
            self._asyncio.call_soon_threadsafe(self._loaded.set_exception, error)
            return
        self._stats = engine.stats()
        self._asyncio.call_soon_threadsafe(self._loaded.set_result, engine)
        try:
            self._step_until_closed(engine)
        except Exception:
            logger.exception("The engine is dead")
            self._on_death()
            return
        engine.close()

    def _step_until_closed(self, engine: Engine) -> None:
        idle, began = True, time.perf_counter()
        while True:
            # An idle engine waits for a command; a busy one takes what has come and goes on.
            self._step_began = None if idle else time.monotonic()
            while idle or not self._commands.empty():
                command = self._commands.get()
                if idle:
                    began = time.perf_counter()
                if isinstance(command, _Close):
                    return
                self._step_began = self._step_began or time.monotonic()
                self._execute(engine, command)
                idle = False
            step_began = time.monotonic()
            steps = self._preemption.observe(engine.step())
            if engine.resumes and self._stats.waiting and (exchange := self._preemption.exchange()):
                engine.cancel(exchange.cancelled)
                engine.add(exchange.added)
            self._record(engine.stats())  # first: whoever has seen a job's last step finds it gone from the stats
            if steps:
                self._asyncio.call_soon_threadsafe(self._deliver, steps, step_began)
            if vector := self._embedding_queue.advance():
                self._asyncio.call_soon_threadsafe(self._deliver_vector, vector)
            idle = not (steps or self._stats.running or self._stats.waiting or self._embedding_queue)
            ended = time.perf_counter()
            self.steps += 1
            self.busy_seconds += ended - began
            began = ended

    def _execute(self, engine: Engine, command: _Command) -> None:
        if isinstance(command, _Cancel):
            engine.cancel(self._preemption.cancel(command.job_id))
            self._embedding_queue.cancel(command.job_id)
            return
        if isinstance(command, _Embed):
            self._embedding_queue.add(command.request_id, engine, command.inputs, command.key)
            return
        if isinstance(command, _HoldBack):
            if engine.resumes and (held := self._preemption.hold_back(command.job_id)) is not None:
                engine.cancel(held)
            return
        if isinstance(command, _GoOn):
            if job := self._preemption.go_on(command.job_id):
                engine.add(job)
            return
        try:
            engine.add(command.job)
            self._preemption.add(command.job)
        except EngineError as error:
            failed = Step(job_id=command.job.id, error=error)
            self._asyncio.call_soon_threadsafe(self._deliver, [failed], time.monotonic())

    def _record(self, stats: EngineStats) -> None:
        self._stats = stats
        now = time.monotonic()
        if not self._rate or now - self._rate[-1][0] > 0.25:
            self._rate.append((now, stats.generated))
        while self._rate and now - self._rate[0][0] > RATE_WINDOW:
            self._rate.popleft()

    def _deliver(self, steps: list[Step], began: float) -> None:
        for step in steps:
            if mailbox := self._mailboxes.get(step.job_id):
                mailbox.put(step, began)
                if step.error:
                    self._note(mailbox, step.error)
                if mailbox.is_full and step.job_id not in mailbox.held_back:
                    mailbox.held_back.add(step.job_id)
                    self._commands.put(_HoldBack(step.job_id))
                    self._wake()

    def _go_on(self, job_ids: set[int]) -> None:
        for job_id in job_ids:
            self._commands.put(_GoOn(job_id))
        self._wake()

    def _deliver_vector(self, vector: Vector) -> None:
        if vectors := self._vectors.get(vector.request_id):
            vectors.put_nowait(vector)
            self._note(vectors, vector.error)

    def _note(self, request: object, error: EngineError | None) -> None:
        if self.validity.note(request, error):
            logger.error("The model computes NaN or infinite numbers for every request: its process ends")
            self._asyncio.call_later(LAST_WORDS, self._on_no_numbers)
