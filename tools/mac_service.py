"""A server of tools.mac_check's own, and what is measured of it: memory, speed, long prompts, a manager that is killed, sleep."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
import psutil

from src.manager import footprint
from tools.soak.service import Service, ServiceFailed

GIB = 2**30
LONGEST = 32_000  # tokens of the long prompt
TROUBLES = ["Impacting Interactivity", "Innocent", "Insufficient Memory", "OutOfMemory", "MTLCompilerService", "metal library", "Traceback"]
SLEEP_SECONDS = 120.0  # that a stream waits for its Mac to sleep and wake
LOOKS = (0, 1, 2, 5)  # at the memory, seconds after the server's end


class Stream(NamedTuple):
    """How one went: pieces of its answer, seconds to the first and to the end, the longest silence, how it ended."""

    pieces: int
    first: float
    seconds: float
    silence: float
    end: str


class Measured:
    """Starts the server when it is first needed."""

    def __init__(self, model: str, memory_now: Callable[[], str], environ: dict[str, str] | None = None) -> None:
        self._memory_now = memory_now
        self._environ = {"DEFAULT_MODEL": model, "SHUTDOWN_GRACE_SECONDS": "15", **(environ or {})}
        self._service: Service | None = None

    def close(self) -> None:
        if self._service:
            service, self._service = self._service, None
            service.stop()

    def memory(self) -> Iterator[str]:
        yield f"before: {self._memory_now()}"
        self._served()
        yield f"loaded: {self._memory_now()}"
        self.ask(64)
        yield f"after an answer: {self._memory_now()}"
        for model in self._status()["models"]:
            if model.get("state") == "ready":
                kept = ("engine", "device", "context_length", "max_sequences", "expected_bytes")
                yield "the model: " + ", ".join(f"{name} {model[name]}" for name in kept if name in model)
        for use in self._status()["processes"]:
            with contextlib.suppress(psutil.Error):
                resident = psutil.Process(use["pid"]).memory_info().rss
                physical = footprint.physical_bytes(use["pid"])
                told = "unknown" if physical is None else f"{physical / GIB:.2f} GiB"
                yield f"{use['name']}: resident {resident / GIB:.2f} GiB, physical footprint {told}"

    def speed(self) -> Iterator[str]:
        self.ask(16)
        one = self.ask(128)
        yield f"one stream: first piece after {one.first:.2f} s, {_rate(one):.1f} pieces/s, ended with {one.end}"
        with ThreadPoolExecutor(4) as pool:
            four = list(pool.map(self.ask, [128] * 4))
        yield f"four streams: {sum(map(_rate, four)):.1f} pieces/s together, ended with {', '.join(stream.end for stream in four)}"

    def long_prompt(self) -> Iterator[str]:
        context = max((model.get("context_length") or 0 for model in self._status()["models"]), default=0) or 1024
        words = min(context * 3 // 4, LONGEST)
        while (stream := self.ask(8, words)).end.startswith("400") and words > 16:  # more tokens than words
            words //= 2
        yield f"{words} words of {context} tokens: first piece after {stream.first:.1f} s, ended with {stream.end}"
        yield from self._troubles()

    def killed_manager(self) -> Iterator[str]:
        def kill() -> None:
            for use in self._status()["processes"]:
                if use["name"] == "manager":
                    psutil.Process(use["pid"]).kill()

        stream = self.ask(200, after_first=kill)
        yield f"{stream.pieces} pieces, the longest silence {stream.silence:.1f} s, ended with {stream.end}"
        began = time.monotonic()
        while (again := self.ask(4)).pieces == 0 and time.monotonic() - began < 60:
            time.sleep(0.5)
        yield f"the next request was answered after {time.monotonic() - began:.1f} s, ended with {again.end}"

    def sleep(self) -> Iterator[str]:
        print(f"Put the Mac to sleep now (Apple menu), wake it after half a minute. You have {SLEEP_SECONDS:.0f} s.", flush=True)
        wall, awake = time.time(), time.monotonic()
        stream = self.ask(1_000_000, seconds=SLEEP_SECONDS)
        asleep = max(0.0, time.time() - wall - (time.monotonic() - awake))  # a Mac's monotonic clock stands still meanwhile
        yield f"slept {asleep:.0f} s; {stream.pieces} pieces, the longest silence {stream.silence:.1f} s, ended with {stream.end}"
        again = self.ask(4)
        yield f"the next request: {again.pieces} pieces, ended with {again.end}"

    def afterwards(self) -> Iterator[str]:
        self._served()
        yield f"serving: {self._memory_now()}"
        try:
            self.close()
        except ServiceFailed as failed:  # an answer too
            yield f"its end: {str(failed).split(':')[0]}"
        began = time.monotonic()
        for after in LOOKS:
            time.sleep(max(0.0, began + after - time.monotonic()))
            yield f"{after} s after its end: {self._memory_now()}"

    def ask(self, tokens: int, words: int = 12, after_first: Callable[[], None] | None = None, seconds: float = 600.0) -> Stream:
        """One chat. Of what it says only the number of its pieces is kept."""
        body = {
            "model": self._served().model, "stream": True, "max_tokens": tokens, "ignore_eos": True, "temperature": 0,
            "messages": [{"role": "user", "content": "word " * words}],
        }  # fmt: skip
        began = last = time.monotonic()
        pieces, first, silence, end = 0, 0.0, 0.0, "no end"
        try:
            with httpx.stream("POST", f"{self._served().url}/v1/chat/completions", json=body, timeout=600) as response:
                if response.status_code != 200:
                    return Stream(0, 0.0, time.monotonic() - began, 0.0, _code(response.status_code, response.read()))
                for line in response.iter_lines():
                    now = time.monotonic()
                    if now - began > seconds:
                        end = "the end of its time"
                        break
                    if line == "data: [DONE]":
                        break
                    event = json.loads(line[6:]) if line.startswith("data: {") else {}
                    if "error" in event:
                        end = str(event["error"].get("code"))
                    for choice in event.get("choices", []):
                        end = choice.get("finish_reason") or end
                        if choice.get("delta", {}).get("content"):
                            pieces, silence = pieces + 1, max(silence, now - last if pieces else 0.0)
                            first, last = first or now - began, now
                            if pieces == 1 and after_first:
                                after_first()
        except httpx.TransportError as error:
            end = type(error).__name__
        return Stream(pieces, first, time.monotonic() - began, silence, end)

    def _served(self) -> Service:
        if self._service is None:
            self._service = Service.start(self._environ)
            asyncio.run(self._service.wait_ready())
        return self._service

    def _status(self) -> dict[str, Any]:
        return asyncio.run(self._served().status()) or {"models": [], "processes": []}

    def _troubles(self) -> Iterator[str]:
        """Lines of the server's logs by what they have in them, counted; the lines themselves stay here."""
        folder = self._served().folder
        text = "".join(path.read_text(errors="replace") for path in folder.glob("logs/*.log")) if folder else ""
        counts = {words: len(re.findall(re.escape(words), text)) for words in TROUBLES}
        yield "in the logs: " + (", ".join(f"{words} {count}" for words, count in counts.items() if count) or "no trouble")


def _rate(stream: Stream) -> float:
    return (stream.pieces - 1) / (stream.seconds - stream.first) if stream.pieces > 1 else 0.0


def _code(status: int, body: bytes) -> str:
    try:
        return f"{status} {json.loads(body)['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return str(status)
