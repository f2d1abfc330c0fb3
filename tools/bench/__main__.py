"""Measures any OpenAI-compatible server, or several in turn. Knows no engine; our own server's status is read if it is there.

    python -m tools.bench [WORKLOAD ...] --compare ours=http://127.0.0.1:8001 theirs=http://127.0.0.1:8080 [--rounds 3]
                     [--json FILE] [--picture FILE.svg] [--limit .../llama-batched-bench --limit-model FILE.gguf]
    python -m tools.bench --from FILE [--picture FILE.svg]

Closed loop: each client sends its next request when it has the last answer. Every request streams, so that times are a
reader's. Rounds go A B A B, and the table shows medians over the rounds.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

import msgspec

from tools.bench import limit
from tools.bench.canvas import PictureFailed
from tools.bench.client import Server
from tools.bench.figures import failures
from tools.bench.limit import LimitFailed
from tools.bench.picture import draw
from tools.bench.report import Report, begin, load
from tools.bench.table import table
from tools.bench.workloads import WORKLOADS, measure


class Unreachable(Exception):
    """A server to be measured does not answer."""


def arguments_of(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"{', '.join(WORKLOADS)}; all, if none is named")
    parser.add_argument("--compare", nargs="+", metavar="NAME=URL", default=["ours=http://127.0.0.1:8001"], help="the servers to measure")
    parser.add_argument("--model", default="smollm2-135m", help="the model that requests name")
    parser.add_argument("--rounds", type=int, default=3, help="how often each workload runs on each server")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the prompts; by default no run repeats another")
    parser.add_argument("--without-seeds", action="store_true", help="send none, for servers that fail at them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every answer's times here")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the figures: .svg or .png")
    parser.add_argument("--from", type=Path, metavar="FILE", dest="earlier", help="measure nothing: show what --json has written")
    parser.add_argument("--limit", type=Path, metavar="PROGRAM", help=f"llama-batched-bench, run in turn with {limit.WORKLOAD}")
    parser.add_argument("--limit-model", type=Path, metavar="GGUF", help="the model for it: the one that the servers run")
    parser.add_argument("--limit-threads", type=int, default=2, metavar="N", help="its threads: as many as the servers use")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.workloads if name not in WORKLOADS]:
        parser.error(f"there is no workload {unknown[0]}; choose from {', '.join(WORKLOADS)}")
    if wrong := [pair for pair in arguments.compare if "=" not in pair]:
        parser.error(f"--compare takes NAME=URL, as in ours=http://127.0.0.1:8001, and got {wrong[0]}")
    if arguments.limit and not arguments.limit_model:
        parser.error("--limit needs --limit-model, the GGUF file that the servers run")
    if arguments.rounds < 1:
        parser.error("--rounds takes 1 or more")
    arguments.workloads = arguments.workloads or list(WORKLOADS)
    return arguments


async def describe(server: Server) -> dict[str, object]:
    """What a server says of itself. Raises Unreachable."""
    models = await server.get("/v1/models")
    if models is None:
        raise Unreachable(f"{server.name} does not answer at {server.url}/v1/models. Start it, or correct --compare.")
    status = await server.get("/v1/system/status") or {}
    return {"url": server.url, "models": [model["id"] for model in models["data"]], "versions": status.get("versions", {})}


async def run(arguments: argparse.Namespace) -> Report:
    """Every workload on every server, round by round. Raises Unreachable or LimitFailed."""
    named = (pair.split("=", 1) for pair in arguments.compare)
    servers = [Server(name, url, arguments.model, seeds=not arguments.without_seeds) for name, url in named]
    report = begin(arguments.seed, {server.name: await describe(server) for server in servers})
    for workload in arguments.workloads:
        for number in range(arguments.rounds):
            for server in servers:
                label = f"{workload}, round {number + 1} of {arguments.rounds}, {server.name}"
                # A seed of its own for each round: no server may know a prefix from the round before.
                measured = await measure(server, workload, f"{workload} {number} {arguments.seed}", label)
                report.add(workload, server.name, measured)
                wrong = failures([measured])
                note(label, f"{measured.seconds:.1f} s" + (f", {len(wrong)} failed: {wrong[0]}" if wrong else ""))
            if arguments.limit and workload == limit.WORKLOAD:
                report.limit.append(await limit.measure(arguments.limit, arguments.limit_model, arguments.limit_threads))
                note(f"limit, round {number + 1}", f"{report.limit[-1].requests_per_second:.2f} requests/s")
        if arguments.json:
            report.write(arguments.json)  # after each workload: an interrupted benchmark keeps what it has
    return report


def note(label: str, what: str) -> None:
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}{label}: {what}", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> None:
    arguments = arguments_of(argv)
    try:
        report = load(arguments.earlier) if arguments.earlier else asyncio.run(run(arguments))
        print(table(report))
        if arguments.picture:
            draw(report, arguments.picture)
    except msgspec.DecodeError as error:
        raise SystemExit(f"{arguments.earlier} is not a file that --json has written: {error}") from None
    except (Unreachable, LimitFailed, PictureFailed, OSError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
