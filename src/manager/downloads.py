"""Downloads that were asked for by HTTP: each a process of its own, joined by name, told of while it runs. Knows no source."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from src import logs
from src.errors import DownloadFailed
from src.protocol import Download, DownloadProgress
from src.settings import Settings

KEPT = 100  # downloads that are told of, the newest


class _Line(msgspec.Struct):
    """What `python -m src.download --json` prints."""

    stage: str
    bytes_read: int
    bytes_total: int
    reason: str | None


class Downloads:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state: dict[str, DownloadProgress] = {}
        self._processes: dict[str, Process] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Condition()

    def list(self) -> list[DownloadProgress]:
        """Those that run and those that ended lately, the newest last."""
        return list(self._state.values())

    async def follow(self, request: Download) -> AsyncIterator[DownloadProgress]:
        """Start a download, or join one that runs for the same name; the last is `done`. Raises DownloadFailed.

        It goes on when nobody follows it any more.
        """
        name = request.name or request.repo.rsplit("/", 1)[-1]
        if name not in self._tasks or self._state[name].stage in ("done", "failed"):
            self._state.pop(name, None)
            for oldest in list(self._state)[: max(0, len(self._state) - KEPT + 1)]:
                del self._state[oldest]
            self._state[name] = DownloadProgress(name=name, repo=request.repo, source=request.source, stage="listing")
            self._tasks[name] = asyncio.create_task(self._run(name, request))
        last = None
        while True:
            state = self._state[name]
            if state != last:
                if state.stage == "failed":
                    raise DownloadFailed(f"{name} was not downloaded: {state.reason}.")
                yield (last := state)
            if state.stage == "done":
                return
            async with self._changed:
                while self._state[name] == last:
                    await self._changed.wait()

    async def close(self) -> None:
        """They stop; what they have got is gone on from by the next try."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, name: str, request: Download) -> None:
        logs.models.info("Downloading {} from {} as {}", request.repo, request.source, name)
        arguments = [request.repo, "--source", request.source, "--name", name, "--models-dir", str(self._settings.models_path)]
        arguments += [f"--revision={request.revision}"] if request.revision else []
        arguments += [f"--include={pattern}" for pattern in request.include]
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "src.download", "--json", *arguments,
                stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd=Path(__file__).parents[2],
            )  # fmt: skip
            self._processes[name] = process
            assert process.stdout is not None
            async for text in process.stdout:
                line = msgspec.json.decode(text, type=_Line)
                await self._tell(name, line)
                if line.stage in ("done", "failed"):
                    logs.models.info("The download of {} ended: {}", name, line.reason or line.stage)
            status = await process.wait()
            if self._state[name].stage not in ("done", "failed"):
                await self._tell(name, _Line("failed", 0, 0, f"its process ended with status {status}; ask again, it goes on where it was"))
        except (OSError, msgspec.MsgspecError) as error:
            await self._tell(name, _Line("failed", 0, 0, str(error)))
        finally:
            self._processes.pop(name, None)
            if self._tasks[name] is asyncio.current_task():
                del self._tasks[name]

    async def _tell(self, name: str, line: _Line) -> None:
        async with self._changed:
            self._state[name] = msgspec.structs.replace(
                self._state[name], stage=line.stage, bytes_read=line.bytes_read, bytes_total=line.bytes_total, reason=line.reason
            )
            self._changed.notify_all()
