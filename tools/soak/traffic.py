"""Clients that ask all kinds of things at the same time, as long as they are told to. Kills nothing.

Each behaves as an SDK does: where the connection breaks off because its gateway worker was killed, it asks again.
"""

import asyncio
import math
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tools.bench.client import Exchange, Server
from tools.soak import cases, reply
from tools.soak.cases import CHAT, EMBEDDING, Case
from tools.soak.reference import RIGHT, WRONG, Reference, worst
from tools.soak.reply import BrokenOff, Reply
from tools.soak.tally import ERROR, LEFT, LOST, Tally

PATIENCE = 660.0  # seconds without a whole answer after which a request is lost: longer than REQUEST_TIMEOUT, which answers 504
TRIES = 5
CASES_OF_A_KIND = 6
Ending = tuple[str, str]  # how a request ended, and why


class Traffic:
    def __init__(self, url: str, model: str, seed: int, kills_of_gateway: Callable[[], list[float]]) -> None:
        """`kills_of_gateway`: when one was killed, in time.monotonic() seconds; a connection may break off only then."""
        self.tally = Tally(asked={}, ends={}, errors={}, odd=[], times=[])
        self.began = time.monotonic()
        self._server, self._model, self._seed = Server("soaked", url, model), model, seed
        self._gateway_kills = kills_of_gateway
        self._cases: list[Case] = []
        self._vector: list[float] = []
        self._embeds = True
        self._bad = cases.bad(model)
        self._kinds: list[tuple[int, str, Callable[[random.Random], Awaitable[Ending]]]] = [
            (30, "streamed", lambda draw: self._known(draw, stream=True)),
            (20, "plain", lambda draw: self._known(draw, stream=False)),
            (10, "asked again", self._asked_again),
            (10, "vanished", self._vanished),
            (8, "structured", self._structured),
            (8, "tools", self._tools),
            (8, "bad", self._bad_request),
            (6, "embeddings", self._embedded),
        ]

    async def prepare(self) -> None:
        """Ask for the references: undisturbed, one after the other. Raises BrokenOff."""
        found = [msgspec.structs.replace(case, references=await self._places(case)) for case in cases.candidates(self._model, self._seed)]
        for case in map(cases.cut_before_ties, cases.chosen(found, CASES_OF_A_KIND)):
            self._cases.append(msgspec.structs.replace(case, references=await self._places(case)))
        answer = await self._ask(EMBEDDING, self._embedding())
        self._vector, self._embeds = answer.vector, answer.error is None
        self.began = time.monotonic()

    async def run(self, clients: int, stop: asyncio.Event) -> None:
        """Returns when the last answer has come, after `stop` is set."""
        await asyncio.gather(*(self._client(random.Random(f"{self._seed} {number}"), stop) for number in range(clients)))

    async def _client(self, draw: random.Random, stop: asyncio.Event) -> None:
        while not stop.is_set():
            weights = [weight for weight, _, _ in self._kinds]
            _, kind, ask = draw.choices(self._kinds, weights)[0]
            self.tally.ask(kind)
            try:
                end, why = await ask(draw)
            except BrokenOff as error:
                end, why = LOST, str(error)
            self.tally.end(time.monotonic() - self.began, kind, end, why)

    # Kinds of requests

    async def _known(self, draw: random.Random, stream: bool) -> Ending:
        case = draw.choice(self._cases)
        return _judge(case, await self._ask(case.path, {**case.body, "stream": stream}))

    async def _asked_again(self, draw: random.Random) -> Ending:
        """Its client loses the connection on purpose, and goes on where it was, or asks for the whole once more."""
        case = draw.choice(self._cases)
        body, key = msgspec.json.encode({**case.body, "stream": True}), {"Idempotency-Key": uuid.UUID(int=draw.getrandbits(128)).hex}
        seen = await self._cut(await self._server.post(case.path, body, key), draw)
        if draw.random() < 0.5:
            return _judge(case, await self._ask(case.path, body, key))
        after = {"Last-Event-ID": str(seen.last_event)} if seen.last_event else {}
        rest = await self._ask(case.path, body, {**key, **after})
        if rest.error is None and after:
            rest.texts = {at: seen.texts.get(at, "") + rest.texts.get(at, "") for at in {**seen.texts, **rest.texts}}
            rest.reasons = {**seen.reasons, **{at: reason for at, reason in rest.reasons.items() if reason}}
        return _judge(case, rest)

    async def _vanished(self, draw: random.Random) -> Ending:
        case = draw.choice(self._cases)
        body = {**case.body, "stream": draw.random() < 0.7, "max_tokens": 200, "ignore_eos": True, "stop": None}
        await self._cut(await self._server.post(case.path, msgspec.json.encode(body)), draw)
        return LEFT, ""

    async def _structured(self, draw: random.Random) -> Ending:
        answer = await self._ask(CHAT, {**cases.structured(self._model, draw.randrange(1000)), "stream": draw.random() < 0.5})
        if answer.error is not None:
            return _failed(answer)
        return (RIGHT, "") if cases.holds_schema(answer.texts.get(0, "")) else (WRONG, f"not by its schema: {answer.texts}")

    async def _tools(self, draw: random.Random) -> Ending:
        answer = await self._ask(CHAT, {**cases.with_tools(self._model, draw.randrange(1000)), "stream": draw.random() < 0.5})
        if answer.error is not None:
            return _failed(answer)
        name, arguments = answer.calls.get(0, ("", ""))
        right = name == "book_trip" and cases.holds_schema(arguments) and answer.reasons.get(0) == "tool_calls"
        return (RIGHT, "") if right else (WRONG, f"no such call: {answer.calls} {answer.texts} {answer.reasons}")

    async def _bad_request(self, draw: random.Random) -> Ending:
        path, body, status, code = draw.choice(self._bad)
        answer = await self._ask(path, body)
        if answer.status >= 500:
            return _failed(answer)
        right = (answer.status, answer.error) == (status, code)
        return (RIGHT, "") if right else (WRONG, f"{status} {code} became {answer.status} {answer.error} for {body[:80]!r}")

    async def _embedded(self, draw: random.Random) -> Ending:
        answer = await self._ask(EMBEDDING, self._embedding())
        if not self._embeds:  # then each time for the same reason
            return (RIGHT, "") if answer.error else (WRONG, "a vector of a model that had none")
        if answer.error is not None:
            return _failed(answer)
        alike = _cosine(answer.vector, self._vector)
        return (RIGHT, "") if alike > 0.99 else (WRONG, f"a vector that is like its reference by {alike:.3f}")

    # Asking

    def _embedding(self) -> dict[str, Any]:
        return {"model": self._model, "input": "The house at the river."}

    async def _places(self, case: Case) -> list[Reference]:
        answer = await self._ask(case.path, cases.with_logprobs(case))
        if answer.error is not None:
            raise BrokenOff(f"A reference was refused with {answer.error}: {case.body}")
        return [Reference(text, answer.places.get(at, []), case.temperature) for at, text in sorted(answer.texts.items())]

    async def _ask(self, path: str, body: dict[str, Any] | bytes, headers: dict[str, str] | None = None) -> Reply:
        """The whole answer. Raises BrokenOff where it does not come, through no kill of a gateway worker."""
        encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
        for attempt in range(TRIES):
            asked_at = time.monotonic()
            exchange = await self._server.post(path, encoded, headers)
            try:
                await asyncio.wait_for(exchange.end(), PATIENCE)
                return reply.read(exchange)
            except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
                exchange.close()
                raise BrokenOff(f"no whole answer within {PATIENCE:.0f} s") from None
            except BrokenOff:
                await asyncio.sleep(0.2)  # till the killer has noted what it did
                if attempt == TRIES - 1 or not any(at >= asked_at - 1 for at in self._gateway_kills()):
                    raise
                self.tally.asked_again += 1
        raise AssertionError("unreachable")

    async def _cut(self, exchange: Exchange, draw: random.Random) -> Reply:
        """Hang up after some events, or some time; what had come till then."""
        events, give_up = draw.randrange(12), time.monotonic() + draw.uniform(0.05, 3)
        while not exchange.ended() and time.monotonic() < give_up and not (events and exchange.events() >= events):
            await asyncio.sleep(0.02)
        if not exchange.ended():
            exchange.hang_up()
        return reply.read(exchange, complete=False)


def _judge(case: Case, answer: Reply) -> Ending:
    if answer.error is not None:
        return _failed(answer)
    if sorted(answer.texts) != list(range(len(case.references))) or not all(answer.reasons.get(at) for at in answer.texts):
        return WRONG, f"choices {sorted(answer.texts)} with reasons {answer.reasons}"
    verdict = worst([reference.judge(answer.texts[at]) for at, reference in enumerate(case.references)])
    if verdict == RIGHT:
        return RIGHT, ""
    texts = [(reference.text, answer.texts[at]) for at, reference in enumerate(case.references)]
    return verdict, f"temperature {case.temperature}: {texts}"


def _failed(answer: Reply) -> Ending:
    return (
        (ERROR, f"{answer.error}: {answer.message}")
        if answer.error
        else (LOST, f"status {answer.status} without an error of OpenAI's form")
    )


def _cosine(one: list[float], other: list[float]) -> float:
    size = math.sqrt(sum(x * x for x in one) * sum(x * x for x in other))
    return sum(x * y for x, y in zip(one, other, strict=True)) / size if size and len(one) == len(other) else 0.0
