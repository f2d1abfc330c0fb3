"""How long one API key waits for its first token while another key floods the server, in each way that it might.

    python -m tools.starvation [KIND ...] [--samples 60] [--json FILE]

A server of our own with the built-in model, two keys, one hog at a time. The guest asks one short question after another, first
alone, then beside the hog; the table has the 95th percentile of its time to the first token, and the ratio of the two.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec

from src.settings import ROOT
from tools.soak.service import STARTING_SECONDS, Service, ServiceFailed

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
MODEL = "smollm2-135m"
HEAD_START = 3.0  # seconds of the hog alone, with the start of its process


class Sample(msgspec.Struct):
    """95th percentiles of the time to the first token, in seconds, and how many questions were refused."""

    kind: str
    alone: float
    beside: float
    refused: int


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **fields}


def schema(number: int, **keywords: Any) -> dict[str, Any]:
    """One that no request had before."""
    return {"type": "object", "properties": {f"field_{number}": {"type": "integer", **keywords}}, "required": [f"field_{number}"]}


def slow_tools(number: int) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {"name": f"f{place}", "strict": True, "parameters": schema(number * 100 + place, multipleOf=999983)},
        }
        for place in range(24)
    ]


# What a hog sends, by kind: requests at once, and the body of each by its number.
Hog = tuple[int, str, Callable[[int], dict[str, Any]]]
HOGS: dict[str, Hog] = {
    "choices": (4, CHAT, lambda number: chat(n=112, max_tokens=300, ignore_eos=True)),
    "slots": (2, CHAT, lambda number: chat(n=20, max_tokens=2000, ignore_eos=True)),
    "grammars": (6, CHAT, lambda number: chat(tools=slow_tools(number), max_tokens=4)),
    "prompts": (
        6,
        CHAT,
        lambda number: chat(messages=[{"role": "user", "content": f"{number} " + "some words and more. " * 600}], max_tokens=4),
    ),
    "texts": (8, "/v1/tokenize", lambda number: {"model": MODEL, "prompt": f"{number} " + "some words and more of them. " * 100_000}),
    "embeddings": (5, EMBEDDINGS, lambda number: {"model": MODEL, "input": [f"{number} " + "many words " * 600] * 150}),
}


def guest_body(kind: str, number: int) -> dict[str, Any]:
    """The hog of grammars keeps those from their answer who need one themselves."""
    if kind == "grammars":
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema(10**6 + number)}}
        return chat(max_tokens=4, stream=True, response_format=form)
    return chat(max_tokens=4, stream=True)


class Guest:
    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120)
        self._number = 0
        self.refused = 0

    def wait_served(self) -> None:
        """Returns once the model answers."""
        give_up = time.monotonic() + STARTING_SECONDS
        while True:
            with contextlib.suppress(httpx.TransportError):
                if self._http.post(CHAT, json=chat(max_tokens=1)).status_code == 200:
                    return
            if time.monotonic() > give_up:
                raise ServiceFailed(f"no answer within {STARTING_SECONDS:.0f} s")
            time.sleep(0.2)

    def percentile(self, kind: str, samples: int) -> float:
        return statistics.quantiles((self._first_token(kind) for _ in range(samples)), n=20, method="inclusive")[-1]

    def _first_token(self, kind: str) -> float:
        """In seconds; one that is refused counts with the time until one is not. The answer is read to its end, so that the next
        question does not wait for this one's place."""
        began, came = time.monotonic(), None
        while True:
            self._number += 1
            with self._http.stream("POST", CHAT, json=guest_body(kind, self._number)) as response:
                if response.status_code == 200:
                    for line in response.iter_lines():
                        if came is None and '"content":"' in line and '"content":""' not in line:
                            came = time.monotonic() - began
                    if came is None:
                        raise RuntimeError("an answer without a token")
                    return came
                self.refused += 1
            time.sleep(0.05)


def send_for_ever(url: str, key: str, kind: str) -> None:
    clients, path, body = HOGS[kind]

    def ask(number: int) -> None:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=300) as http:
            while True:
                with contextlib.suppress(httpx.TransportError):  # the server is stopped at the end
                    http.post(path, json=body(number))
                number += clients

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(ask, range(clients)))


@contextlib.contextmanager
def flood(url: str, key: str, kind: str) -> Iterator[None]:
    """From a process of its own: the guest's clock is not to wait for the hog's JSON."""
    process = multiprocessing.get_context("spawn").Process(target=send_for_ever, args=(url, key, kind), daemon=True)
    process.start()
    time.sleep(HEAD_START)
    try:
        yield
    finally:
        process.kill()
        process.join()


@contextlib.contextmanager
def served() -> Iterator[tuple[str, str, str]]:
    """A server, and the hog's and the guest's key."""
    with tempfile.TemporaryDirectory(prefix="starvation-") as folder:
        environ = {"API_KEYS_FILE": str(Path(folder) / "keys.json"), "DEFAULT_MODEL": MODEL, "SHUTDOWN_GRACE_SECONDS": "1"}
        hog, guest = (_new_key(name, environ) for name in ("hog", "guest"))
        service = Service.start(environ)
        try:
            Guest(service.url, guest).wait_served()
            yield service.url, hog, guest
        finally:
            service.stop()


def _new_key(name: str, environ: dict[str, str]) -> str:
    command = [sys.executable, "scripts/manage_keys.py", "add", name]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, check=True).stdout.split()[0]


def measure(kind: str, samples: int) -> Sample:
    """Each kind has a server of its own: what a hog has left behind is nobody else's."""
    with served() as (url, hog_key, guest_key):
        guest = Guest(url, guest_key)
        guest.percentile(kind, 5)
        alone = guest.percentile(kind, samples)
        with flood(url, hog_key, kind):
            beside = guest.percentile(kind, samples)
        return Sample(kind, alone, beside, guest.refused)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(HOGS)}; all, if none is named")
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    print("| Hog | Alone, p95 | Beside it, p95 | Ratio | Refused |\n|---|---|---|---|---|")
    for kind in options.kinds or HOGS:
        sample = measure(kind, options.samples)
        found.append(sample)
        alone, beside = sample.alone, sample.beside
        print(f"| {kind} | {alone * 1000:.0f} ms | {beside * 1000:.0f} ms | {beside / alone:.1f} | {sample.refused} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(msgspec.to_builtins(found), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
