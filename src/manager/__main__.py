"""`python -m src.manager ADDRESS`: runs until its parent, Gunicorn's master, is gone or sends SIGTERM.

ADDRESS is what the banner shows. The socket is manager.sock in RUN_DIR, a private folder that this process removes.
"""

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

from src import logs
from src.manager.clean import keep_clean
from src.manager.downloads import Downloads
from src.manager.manager import Manager, load_default
from src.manager.report import Reporter
from src.manager.server import ManagerServer
from src.manager.watch import watch
from src.protocol import ModelReady
from src.settings import Settings

METRICS_INTERVAL = 60  # seconds between two samples in system_metrics.log


def main() -> None:
    parent = os.getppid()
    settings = Settings.load()
    logs.configure(settings, "manager")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the master's to answer
    asyncio.run(_run(settings, sys.argv[1], parent))


async def _run(settings: Settings, address: str, parent: int) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    run_dir = Path(settings.run_dir)
    manager = Manager(settings, run_dir)
    reporter = Reporter(manager)
    downloads = Downloads(settings)
    await ManagerServer(manager, reporter, downloads).bind(str(run_dir / "manager.sock"))
    tasks = [
        asyncio.create_task(_load_and_greet(manager, address)),
        asyncio.create_task(_log_metrics(reporter)),
        asyncio.create_task(watch(manager)),
        asyncio.create_task(keep_clean(settings)),
        asyncio.create_task(_notice_orphaned(parent, stopping)),
    ]
    await stopping.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(downloads.close(), manager.close())
    shutil.rmtree(run_dir, ignore_errors=True)


async def _load_and_greet(manager: Manager, address: str) -> None:
    ready = await load_default(manager)
    if ready and manager.settings.log_format == "json":
        logs.app.info("Ready: {} serves {} with {}", address, ready.model, ready.engine)
    elif ready:
        print(_banner(ready, address, manager.settings), flush=True)


def _banner(ready: ModelReady, address: str, settings: Settings) -> str:
    url = f"{'https' if settings.tls_certfile else 'http'}://{address}/v1"
    key = " -H 'Authorization: Bearer YOUR-KEY'" if settings.has_keys else ""
    body = f'{{"model": "{ready.model}", "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'
    return (
        f"\nReady: {url}   model: {ready.model}   engine: {ready.engine}\n"
        f"Try:   curl {url}/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'\n"
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
