"""`python -m src.manager URL PARENT`: runs until its parent, Gunicorn's master, is gone or sends SIGTERM.

URL is where the service listens, for the banner. PARENT is the master's process id: asked of the kernel it could
be another's by now, were the master killed while this starts. The manager's own socket is manager.sock in RUN_DIR, a
private folder that this process removes where its master could not.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from src import logs, rundir
from src.manager.awake import kept_awake
from src.manager.cleanup import keep_clean
from src.manager.downloads import Downloads
from src.manager.health import keep_informed
from src.manager.manager import Manager, load_first
from src.manager.metrics.exposition import Exposition
from src.manager.metrics.listener import Listener
from src.manager.report import Reporter
from src.manager.server import ManagerServer
from src.manager.upkeep import Upkeep
from src.protocol import ModelReady
from src.settings import Settings
from src.systemd import Notifier

METRICS_INTERVAL = 60  # seconds between two samples in system_metrics.log
FIRST_QUESTION = "What is the capital of Japan?"  # the README's: the built-in model is sure of the answer, docs/BENCHMARKS.md


def main() -> None:
    url, parent = sys.argv[1], int(sys.argv[2])
    settings, notifier = Settings.load(), Notifier()
    logs.configure(settings, "manager")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the master's to answer
    with kept_awake():
        asyncio.run(_run(settings, url, parent, notifier))


async def _run(settings: Settings, url: str, parent: int, notifier: Notifier) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    run_dir = Path(settings.run_dir)
    manager = Manager(settings, run_dir)
    reporter = Reporter(manager)
    downloads = Downloads(settings)
    exposition = Exposition(manager.fleet)
    await manager.folder.current()  # so that the first load begins before anyone can ask whether the server is healthy
    server = ManagerServer(manager, reporter, downloads, exposition)
    await server.bind(str(run_dir / "manager.sock"))
    metrics = Listener(exposition.text, settings.host_names)
    if address_of_metrics := settings.metrics_listen:
        await metrics.bind(*address_of_metrics)
    tasks = [
        asyncio.create_task(_load_and_greet(manager, url)),
        asyncio.create_task(_log_metrics(reporter)),
        asyncio.create_task(Upkeep(manager).run()),
        asyncio.create_task(keep_clean(settings)),
        asyncio.create_task(_notice_orphaned(parent, stopping)),
    ]
    if notifier:
        tasks.append(asyncio.create_task(keep_informed(notifier, run_dir / "health.sock", manager.fleet.is_loading)))
    await stopping.wait()
    for task in tasks:
        task.cancel()
    server.close()
    metrics.close()
    await asyncio.gather(downloads.close(), manager.close())
    rundir.remove_if_unclaimed(settings.run_dir)


async def _load_and_greet(manager: Manager, url: str) -> None:
    ready = await load_first(manager)
    if ready and manager.settings.log_format == "json":
        logs.app.info("Ready: {} serves {} with {}", url, ready.model, ready.engine)
    elif ready:
        print(_banner(ready, url, manager.settings), flush=True)


def _banner(ready: ModelReady, url: str, settings: Settings) -> str:
    key = " -H 'Authorization: Bearer YOUR-KEY'" if settings.has_keys else ""
    body = f'{{"model": "{ready.model}", "messages": [{{"role": "user", "content": "{FIRST_QUESTION}"}}]}}'
    return (
        f"\nReady: {url}/v1   model: {ready.model}   engine: {ready.engine}\n"
        f"Try:   curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'\n"
    )


async def _log_metrics(reporter: Reporter) -> None:
    while True:
        await reporter.log_metrics()
        await asyncio.sleep(METRICS_INTERVAL)


async def _notice_orphaned(parent: int, stopping: asyncio.Event) -> None:
    """A master killed with SIGKILL tells nobody; its children get another parent."""
    while os.getppid() == parent:
        await asyncio.sleep(0.5)
    stopping.set()


if __name__ == "__main__":
    main()
