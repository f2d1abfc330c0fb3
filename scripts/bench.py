"""Measures any OpenAI-compatible server, or several in turn. Knows no engine; our own server's status is read if it is there.

    scripts/bench.py WORKLOAD ... --compare ours=http://127.0.0.1:8001 theirs=http://127.0.0.1:8080 [--rounds 3] [--json FILE]

Closed loop: each client sends its next request when it has the last answer. Every request streams, so that times are a
reader's. Rounds go A B A B, and the table shows medians over the rounds.
"""

import argparse
import asyncio
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

WORDS = """river mountain copper window seven market gentle thunder paper silver garden motor ocean letter winter bridge candle
forest engine harbour music velvet planet meadow ticket hammer island summer mirror kitchen tunnel feather station""".split()


@dataclass
class Answer:
    """One request as its reader saw it. Times in seconds from sending it."""

    first_token: float | None = None
    gaps: list[float] = field(default_factory=list)  # between pieces of text
    total: float = 0.0
    completion_tokens: int = 0
    cached_tokens: int = 0
    error: str | None = None


@dataclass
class Round:
    """What a workload took on one server, once."""

    seconds: float
    answers: list[Answer]
    own_share: float | None = None  # of our engine thread's time that was not spent in the forward pass


Ask = Callable[[str, int, int], Any]  # (prompt, seed, completion tokens) -> Answer, to be awaited


def prose(random_numbers: random.Random, words: int) -> str:
    return " ".join(random_numbers.choice(WORDS) for _ in range(words))


async def loop(ask: Ask, prompts: list[str], clients: int, tokens: int) -> list[Answer]:
    """`clients` readers share out the prompts."""
    left = list(enumerate(prompts))[::-1]
    answers: list[Answer] = []

    async def client() -> None:
        while left:
            seed, prompt = left.pop()
            answers.append(await ask(prompt, seed, tokens))
            print(f"\r  {len(answers)}/{len(prompts)}", end="", file=sys.stderr, flush=True)

    await asyncio.gather(*(client() for _ in range(clients)))
    print("\r", end="", file=sys.stderr)
    return answers


async def distinct(ask: Ask, salt: random.Random) -> list[Answer]:
    """20 clients, 60 prompts that share nothing, about 40 tokens each, 64 new tokens."""
    return await loop(ask, [prose(salt, 30) for _ in range(60)], 20, 64)


async def shared(ask: Ask, salt: random.Random) -> list[Answer]:
    """20 clients, 40 prompts that begin with the same 500 tokens, seen for the first time, 64 new tokens."""
    system = prose(salt, 450)
    return await loop(ask, [f"{system}\n{prose(salt, 12)}" for _ in range(40)], 20, 64)


async def warm(ask: Ask, salt: random.Random) -> list[Answer]:
    """The same as shared, but its prefix was asked for before."""
    system = prose(salt, 450)
    await ask(system, 0, 1)
    return await loop(ask, [f"{system}\n{prose(salt, 12)}" for _ in range(40)], 20, 64)


async def single(ask: Ask, salt: random.Random) -> list[Answer]:
    """1 client, 8 prompts, 64 new tokens."""
    return await loop(ask, [prose(salt, 10) for _ in range(8)], 1, 64)


async def intrusion(ask: Ask, salt: random.Random) -> list[Answer]:
    """8 streams of 500 tokens decode while a prompt of about 4,000 tokens arrives; the gaps of the 8 are what counts."""
    streams = [asyncio.create_task(ask(prose(salt, 10), seed, 500)) for seed in range(8)]
    await asyncio.sleep(3)
    long = asyncio.create_task(ask(prose(salt, 3500), 99, 1))
    answers = await asyncio.gather(*streams)
    await long
    return list(answers)


WORKLOADS = {of.__name__: of for of in (distinct, shared, warm, single, intrusion)}


class Server:
    """One server to measure."""

    def __init__(self, name: str, url: str, session: aiohttp.ClientSession, model: str) -> None:
        self.name = name
        self._url = url.rstrip("/").removesuffix("/v1")
        self._session = session
        self._model = model

    async def ask(self, prompt: str, seed: int, tokens: int) -> Answer:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "seed": seed,
            "temperature": 0.8,
            "top_k": 40,
            "top_p": 0.95,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        answer, began = Answer(), time.perf_counter()
        try:
            await self._read(body, answer, began)
        except (aiohttp.ClientError, TimeoutError) as error:
            answer.error = f"{type(error).__name__}: {error}"
        if answer.error is None and answer.completion_tokens != tokens:
            answer.error = f"{answer.completion_tokens} of {tokens} tokens"
        answer.total = time.perf_counter() - began
        return answer

    async def _read(self, body: dict[str, Any], answer: Answer, began: float) -> None:
        last = began
        async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as response:
            if response.status != 200:
                answer.error = f"{response.status}: {(await response.text())[:200]}"
                return
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    answer.error = chunk["error"]["message"]
                if usage := chunk.get("usage"):
                    answer.completion_tokens = usage["completion_tokens"]
                    answer.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
                if chunk.get("choices") and chunk["choices"][0]["delta"].get("content"):
                    now = time.perf_counter()
                    if answer.first_token is None:
                        answer.first_token = now - began
                    else:
                        answer.gaps.append(now - last)
                    last = now

    async def engine_times(self) -> tuple[float, float] | None:
        """Seconds in steps and in their forward passes, where the server tells."""
        try:
            async with self._session.get(f"{self._url}/v1/system/status") as response:
                stats = [model["stats"] for model in (await response.json())["models"] if model.get("stats")]
                return stats[0]["step_seconds"], stats[0]["compute_seconds"]
        except (aiohttp.ClientError, KeyError, IndexError, ValueError):
            return None

    async def measure(self, workload: str, seed: str) -> Round:
        before, began = await self.engine_times(), time.perf_counter()
        answers = await WORKLOADS[workload](self.ask, random.Random(seed))
        seconds, after = time.perf_counter() - began, await self.engine_times()
        own = None
        if before and after and after[0] > before[0]:
            own = 1 - (after[1] - before[1]) / (after[0] - before[0])
        return Round(seconds, answers, own)


def percentile(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def figures(rounds: list[Round]) -> dict[str, float | int | None]:
    """Medians over the rounds; latencies over all their answers. Rates per second, times in milliseconds."""
    good = [answer for one in rounds for answer in one.answers if answer.error is None]
    row: dict[str, float | int | None] = {
        "requests/s": statistics.median(len(one.answers) / one.seconds for one in rounds),
        "tokens/s": statistics.median(sum(answer.completion_tokens for answer in one.answers) / one.seconds for one in rounds),
    }
    times = {
        "ttft": [answer.first_token for answer in good if answer.first_token is not None],
        "itl": [gap for answer in good for gap in answer.gaps],
        "e2e": [answer.total for answer in good],
    }
    for name, values in times.items():
        for share in (50, 95, 99):
            value = percentile(values, share / 100)
            row[f"{name} p{share}"] = None if value is None else 1000 * value
    row["cached"] = sum(answer.cached_tokens for answer in good)
    own = [one.own_share for one in rounds if one.own_share is not None]
    row["own %"] = 100 * statistics.median(own) if own else None
    row["failed"] = sum(answer.error is not None for one in rounds for answer in one.answers)
    return row


def table(results: dict[str, dict[str, list[Round]]]) -> str:
    lines = []
    for workload, servers in results.items():
        rows = {name: figures(rounds) for name, rounds in servers.items()}
        names = list(next(iter(rows.values())))
        lines.append(f"\n{workload}: {WORKLOADS[workload].__doc__}")
        lines.append(f"{'':12}" + "".join(f"{name:>11}" for name in names))
        for name, row in rows.items():
            cells = ("-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}" for value in row.values())
            lines.append(f"{name:12}" + "".join(f"{cell:>11}" for cell in cells))
        first, *others = rows
        for other in others:
            ratio = (rows[first]["requests/s"] or 0) / (rows[other]["requests/s"] or 1)
            lines.append(f"{first} / {other}: {ratio:.2f} x requests/s")
    return "\n".join(lines)


async def run(arguments: argparse.Namespace) -> dict[str, dict[str, list[Round]]]:
    results: dict[str, dict[str, list[Round]]] = {}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=900), connector=aiohttp.TCPConnector(limit=0)) as session:
        pairs = [pair.split("=", 1) for pair in arguments.compare]
        servers = [Server(name, url, session, arguments.model) for name, url in pairs]
        for workload in arguments.workloads:
            for number in range(arguments.rounds):
                for server in servers:
                    print(f"{workload}, round {number + 1}, {server.name}", file=sys.stderr)
                    # A seed of its own for each round: no server may know a prefix from the round before.
                    measured = await server.measure(workload, f"{workload} {number} {arguments.seed}")
                    results.setdefault(workload, {}).setdefault(server.name, []).append(measured)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="+", choices=list(WORKLOADS), metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--compare", nargs="+", metavar="NAME=URL", default=["ours=http://127.0.0.1:8001"])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the prompts; the time by default, so that no run repeats another"
    )
    parser.add_argument("--json", type=Path, help="write every answer's times here")
    arguments = parser.parse_args()
    results = asyncio.run(run(arguments))
    print(f"{platform.processor() or platform.machine()}, {platform.platform()}, Python {platform.python_version()}")
    print(table(results))
    if arguments.json:
        raw = {
            workload: {name: [asdict(one) for one in rounds] for name, rounds in servers.items()} for workload, servers in results.items()
        }
        arguments.json.write_text(json.dumps(raw))


if __name__ == "__main__":
    main()
