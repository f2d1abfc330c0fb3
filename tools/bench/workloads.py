"""The workloads by name: who asks what, when. Knows no figures and no files.

A workload is an async function of a Run and the random numbers of its prompts; what it is for is its docstring.
"""

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable

import msgspec

from tools.bench.client import Exchange, Server
from tools.bench.recording import Answer, read

WORDS = """river mountain copper window seven market gentle thunder paper silver garden motor ocean letter winter bridge candle
forest engine harbour music velvet planet meadow ticket hammer island summer mirror kitchen tunnel feather station""".split()
POLL = 0.02  # seconds between two looks at what has come
PRIME = "prime"  # the role of requests that prepare a round and are not part of it

Messages = list[dict[str, str]]


class Freed(msgspec.Struct, kw_only=True):
    """What a server's status said of its slots around a hang-up."""

    seconds: float  # from the hang-up to a status without the cancelled jobs
    running_before: int
    running_after: int
    kv_before: int  # tokens
    kv_after: int


class Round(msgspec.Struct, kw_only=True):
    """One workload on one server, once. Times in seconds."""

    seconds: float  # from the first request to the last answer
    answers: list[Answer]
    client_seconds: float  # the client's own CPU time
    step_seconds: float | None = None  # the engine's, where the server tells
    compute_seconds: float | None = None
    freed: Freed | None = None


class Disturbed(Exception):
    """A stream ended or failed before the condition that the workload waits for."""


class Run:
    """A workload being run on a server: every request it has sent."""

    def __init__(self, server: Server, label: str) -> None:
        self.exchanges: list[Exchange] = []
        self.freed: Freed | None = None
        self._server = server
        self._label = label
        self._done = 0

    async def start(self, messages: Messages, tokens: int, role: str = "") -> Exchange:
        exchange = await self._server.chat(messages, tokens, seed=len(self.exchanges), role=role)
        self.exchanges.append(exchange)
        return exchange

    async def finish(self, exchange: Exchange) -> Exchange:
        await exchange.end()
        self._done += 1
        self.progress(f"{self._done} answers")
        return exchange

    async def ask(self, messages: Messages, tokens: int, role: str = "") -> Exchange:
        return await self.finish(await self.start(messages, tokens, role))

    async def loop(self, prompts: list[Messages], clients: int, tokens: int, role: str = "") -> None:
        """Closed loop: each client takes the next prompt when it has its answer."""
        left = prompts[::-1]

        async def client() -> None:
            while left:
                await self.ask(left.pop(), tokens, role)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def until(self, condition: Callable[[], bool], streams: list[Exchange]) -> None:
        """Waits for the condition while every stream goes on. Raises Disturbed if one does not."""
        while not condition():
            if any(stream.ended() for stream in streams):
                raise Disturbed
            await asyncio.sleep(POLL)

    async def stats(self) -> dict[str, float] | None:
        """The engine's numbers from our own server's status."""
        return engine_stats(await self._server.get("/v1/system/status"), self._server.model)

    def progress(self, what: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{self._label}: {what}", end="", file=sys.stderr, flush=True)


def engine_stats(status: object, model: str) -> dict[str, float] | None:
    """The stats of the model of that name, or of the only one that is loaded."""
    if not isinstance(status, dict):
        return None
    loaded = {each["name"]: each["stats"] for each in status.get("models", []) if each.get("stats")}
    return loaded.get(model) or (next(iter(loaded.values())) if len(loaded) == 1 else None)


def prose(salt: random.Random, words: int) -> str:
    return " ".join(salt.choice(WORDS) for _ in range(words))


def user(content: str) -> Messages:
    return [{"role": "user", "content": content}]


async def distinct(run: Run, salt: random.Random) -> None:
    """20 clients, 60 prompts that share nothing, 64 new tokens."""
    await run.loop([user(prose(salt, 30)) for _ in range(60)], 20, 64)


def _with_system(salt: random.Random, system: str, count: int) -> list[Messages]:
    return [[{"role": "system", "content": system}, *user(prose(salt, 12))] for _ in range(count)]


async def shared(run: Run, salt: random.Random) -> None:
    """20 clients, 40 prompts with one system prompt of about 500 tokens that the server has never seen, 64 new tokens."""
    await run.loop(_with_system(salt, prose(salt, 480), 40), 20, 64)


async def warm(run: Run, salt: random.Random) -> None:
    """20 clients, 40 prompts with one system prompt of about 500 tokens that 20 clients asked with before, 64 new tokens."""
    system = prose(salt, 480)
    await run.loop(_with_system(salt, system, 20), 20, 16, PRIME)
    await run.loop(_with_system(salt, system, 40), 20, 64)


async def single(run: Run, salt: random.Random) -> None:
    """1 client, 8 prompts, 64 new tokens."""
    await run.loop([user(prose(salt, 10)) for _ in range(8)], 1, 64)


async def seeded(run: Run, salt: random.Random) -> None:
    """8 clients, 16 short prompts, 32 new tokens; each request has a seed of its own."""
    await run.loop([user(prose(salt, 10)) for _ in range(16)], 8, 32)


async def conversation(run: Run, salt: random.Random) -> None:
    """1 client, 20 turns of about 20 words and 32 new tokens; each turn sends all that was said before."""
    said: Messages = []
    for _ in range(20):
        said += user(prose(salt, 20))
        answer, text = read(await run.ask(said, 32), 0.0)
        if not answer.good:
            return  # the error is in the answers
        said.append({"role": "assistant", "content": text})


LONG = "long"


async def intrusion(run: Run, salt: random.Random) -> None:
    """8 streams decode; once each has had 40 tokens, a prompt of about 4,000 tokens arrives. What happens to the gaps of the 8?"""
    streams = [await run.start(user(prose(salt, 10)), 3000) for _ in range(8)]
    await run.until(lambda: all(stream.events() > 40 for stream in streams), streams)
    long = await run.start(user(prose(salt, 3950)), 1, LONG)
    await run.until(lambda: long.ended(), streams)
    after = [stream.events() + 2 for stream in streams]
    await run.until(lambda: all(stream.events() > events for stream, events in zip(streams, after, strict=True)), streams)
    for stream in streams:
        stream.hang_up()


async def cancel(run: Run, salt: random.Random) -> None:
    """20 streams of 400 tokens decode; once each has had 40 tokens, 10 readers hang up. What do the others gain, and when?"""
    streams = [await run.start(user(prose(salt, 10)), 400) for _ in range(20)]
    await run.until(lambda: all(stream.events() > 40 for stream in streams), streams)
    before = await run.stats()
    began = time.perf_counter()
    leaving = salt.sample(streams, 10)
    for stream in leaving:
        stream.hang_up()
    while before:
        now = await run.stats()
        seconds = time.perf_counter() - began
        if now is None or seconds > 30 or (now["running"] <= before["running"] - 10 and now["kv_used"] < before["kv_used"]):
            break
        await asyncio.sleep(POLL / 4)
    if before and now:
        run.freed = Freed(
            seconds=seconds,
            running_before=int(before["running"]),
            running_after=int(now["running"]),
            kv_before=int(before["kv_used"]),
            kv_after=int(now["kv_used"]),
        )
    await asyncio.gather(*(run.finish(stream) for stream in streams if stream not in leaving))


WORKLOADS: dict[str, Callable[[Run, random.Random], Awaitable[None]]] = {
    of.__name__: of for of in (distinct, shared, warm, single, seeded, conversation, intrusion, cancel)
}


async def measure(server: Server, workload: str, seed: str, label: str) -> Round:
    """Run it once. Two runs with the same seed send the same requests."""
    run = Run(server, label)
    before = await run.stats()
    cpu, began = time.process_time(), time.perf_counter()
    try:
        await WORKLOADS[workload](run, random.Random(seed))
    except Disturbed:
        for exchange in run.exchanges:
            if not exchange.ended():
                exchange.fail("given up, since another stream of its round ended too early")
            elif exchange.failure is None and exchange.role != LONG:
                exchange.failure = "ended before the round's end"
    cpu = time.process_time() - cpu
    after = await run.stats()
    answers = [read(exchange, began)[0] for exchange in run.exchanges if exchange.role != PRIME]
    first, last = min(answer.sent for answer in answers), max(answer.ended for answer in answers)
    round_ = Round(seconds=last - first, answers=answers, client_seconds=cpu, freed=run.freed)
    if before and after:
        round_.step_seconds = after["step_seconds"] - before["step_seconds"]
        round_.compute_seconds = after["compute_seconds"] - before["compute_seconds"]
    return round_
