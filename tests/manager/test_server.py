"""The manager's socket: it answers every request of the protocol."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

from src.manager.downloads import Downloads
from src.manager.manager import Manager
from src.manager.metrics.exposition import Exposition
from src.manager.report import Reporter
from src.manager.server import ManagerServer
from src.protocol import (
    Failed,
    Load,
    ManagerEvent,
    ManagerRequest,
    Message,
    Resolve,
    Telemetry,
    decode,
    encode,
)
from src.settings import Settings


def server_of(manager: Manager) -> ManagerServer:
    return ManagerServer(manager, Reporter(manager), Downloads(manager.settings), Exposition(manager.fleet))


@contextlib.asynccontextmanager
async def served(folder: Path, **settings: object) -> AsyncIterator[str]:
    manager = Manager(Settings(log_dir=str(folder / "logs"), **settings), folder)
    path = str(folder / "manager.sock")
    server = server_of(manager)
    await server.bind(path)
    try:
        yield path
    finally:
        server.close()
        await manager.close()


async def ask(path: str, request: Message) -> list[Message]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(encode(request))
        return [decode(line, ManagerEvent) async for line in reader]
    finally:
        writer.close()


def test_every_message_of_the_protocol_has_its_handler(tmp_path):
    server = server_of(Manager(Settings(inference_engine="echo"), tmp_path))
    assert set(server.answers) == set(get_args(ManagerRequest))
    assert set(server.counters) == set(get_args(Telemetry))


def test_a_streamed_load_loads_once_and_ends_with_the_runner(tmp_path):
    async def main() -> None:
        async with served(tmp_path, inference_engine="echo") as path:
            *steps, ready = await ask(path, Load(model="echo", progress=True))
            assert [step.stage for step in steps][:: len(steps) - 1] == ["found", "ready"]
            assert {"reading_weights", "warming_up"} & {step.stage for step in steps}
            assert await ask(path, Resolve(model="echo")) == [ready]

    asyncio.run(main())


def test_a_refusal_is_a_failed_message(tmp_path):
    async def main() -> None:
        async with served(tmp_path, inference_engine="echo") as path:
            [failed] = await ask(path, Load(model="nowhere", progress=True))
        assert isinstance(failed, Failed)
        assert (failed.status, failed.code) == (404, "model_not_found")

    asyncio.run(main())
