"""Asks a server all kinds of things for a long time while its processes are killed, and counts what was lost, wrong or leaked.

    python -m tools.soak [--minutes 30] [--json FILE] [--picture FILE.svg]     starts a server of its own; settings by the environment
    python -m tools.soak --url http://127.0.0.1:8001 [--minutes 30]            one that runs on this machine: its processes are killed too
    python -m tools.soak --from FILE [--picture FILE.svg]                      shows what --json has written

Ends with status 1 where a request was lost, an answer wrong, or a process grew beyond the target.
"""

import argparse
import asyncio
import contextlib
import datetime
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from tools.bench.canvas import PictureFailed
from tools.bench.report import machine
from tools.soak.killer import Killer
from tools.soak.picture import draw
from tools.soak.reply import BrokenOff
from tools.soak.report import Report, load, summary, verdict
from tools.soak.service import Service, ServiceFailed
from tools.soak.traffic import Traffic
from tools.soak.watch import Watch

REST_SECONDS = 60.0
SETTINGS = {"CONTEXT_LENGTH": "1024", "MAX_PARALLEL_SEQUENCES": "8"}  # where the environment does not say otherwise
TOLD = ("INFERENCE_ENGINE", "CONTEXT_LENGTH", "MAX_PARALLEL_SEQUENCES", "THREADS", "WORKERS", "ECHO_STEP_MS", "MODELS_DIR", "DEFAULT_MODEL")


def arguments_of(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="of a server that runs on this machine; without it one is started")
    parser.add_argument("--minutes", type=float, default=30, help="how long: kills of all in the first third, of the runner in the second")
    parser.add_argument("--kill-every", type=float, default=7, metavar="SECONDS", help="from one kill to the next, by half more or less")
    parser.add_argument("--clients", type=int, default=12, help="how many ask at the same time")
    parser.add_argument("--sample-every", type=float, default=2, metavar="SECONDS", help="memory, descriptors and threads")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of what is asked and killed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was counted and sampled here")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it: .svg or .png")
    parser.add_argument("--from", type=Path, metavar="FILE", dest="earlier", help="soak nothing: show what --json has written")
    arguments = parser.parse_args(argv)
    if min(arguments.minutes, arguments.kill_every, arguments.clients, arguments.sample_every) <= 0:
        parser.error("--minutes, --kill-every, --clients and --sample-every take more than 0")
    return arguments


async def soak(service: Service, arguments: argparse.Namespace) -> Report:
    """Raises ServiceFailed, BrokenOff."""
    seconds = 60 * arguments.minutes
    await service.wait_ready()
    killer = Killer(service, arguments.kill_every, seconds, arguments.seed)
    watch = Watch(service, arguments.sample_every)
    traffic = Traffic(service.url, service.model, arguments.seed, lambda: killer.gateway_kills)
    note(f"{service.url} serves {service.model}; asking for the references")
    await traffic.prepare()
    before = await watch.rest(REST_SECONDS)
    note(f"{arguments.clients} clients for {seconds:.0f} s")
    stop = asyncio.Event()
    sideways = [asyncio.create_task(work) for work in (watch.run(), killer.run(), _tell(traffic, killer))]
    asyncio.get_running_loop().call_later(seconds, stop.set)
    await traffic.run(arguments.clients, stop)
    after = await watch.rest(REST_SECONDS)
    for task in sideways:
        task.cancel()
    await asyncio.gather(*sideways, return_exceptions=True)
    status = await service.status() or {"models": []}
    return Report(
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        argv=sys.argv,
        seed=arguments.seed,
        machine=machine(),
        settings={name: value for name, value in {**SETTINGS, **os.environ}.items() if name in TOLD},
        engine=next((str(model["engine"]) for model in status["models"] if model["engine"]), "none"),
        seconds=seconds,
        clients=arguments.clients,
        kills=killer.kills,
        tally=traffic.tally,
        lives=watch.lives,
        rest_before=before,
        rest_after=after,
    )


async def _tell(traffic: Traffic, killer: Killer) -> None:
    """How it goes, once a minute."""
    while True:
        await asyncio.sleep(60)
        tally = traffic.tally
        counts = ", ".join(f"{end} {tally.total(end)}" for end in ("right", "near tie", "error", "left", "wrong", "lost"))
        note(f"{time.monotonic() - traffic.began:.0f} s: asked {tally.total_asked}, {counts}; {len(killer.kills)} kills")


def run(arguments: argparse.Namespace) -> Report:
    service = Service(arguments.url) if arguments.url else Service.start({**SETTINGS, **os.environ})
    try:
        report = asyncio.run(soak(service, arguments))
    except BaseException:
        with contextlib.suppress(ServiceFailed):
            service.stop()
        raise
    if arguments.json:
        report.write(arguments.json)  # before the server's end: what was measured is kept however that goes
    service.stop()
    return report


def note(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> None:
    arguments = arguments_of(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: its server ends too
    try:
        report = load(arguments.earlier) if arguments.earlier else run(arguments)
        print(summary(report))
        if arguments.picture:
            draw(report, arguments.picture)
    except msgspec.DecodeError as error:
        raise SystemExit(f"{arguments.earlier} is not a file that --json has written: {error}") from None
    except (ServiceFailed, BrokenOff, PictureFailed, OSError) as error:
        raise SystemExit(str(error)) from None
    if verdict(report):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
