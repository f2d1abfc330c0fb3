"""Downloads that were asked for by HTTP: each a process of its own, joined by name, told of while it runs. Knows no source."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator

import msgspec

from src import ROOT, logs
from src.download.errors import InvalidReference
from src.download.reference import Reference
from src.errors import DownloadFailed, InvalidValue, TooManyRequests
from src.protocol import Download, DownloadProgress
from src.settings import Settings

KEPT = 100  # downloads that are told of, the newest
RUNNING = 8  # at a time: each is a process with a hub's client


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
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._processes: set[Process] = set()
        self._is_closing = False
        self._changed = asyncio.Condition()

    def list(self) -> list[DownloadProgress]:
        """Those that run and those that ended lately, the newest last."""
        return list(self._state.values())

    async def follow(self, request: Download) -> AsyncIterator[DownloadProgress]:
        """Start a download, or join one that runs for the same name; the last is `done`. Raises DownloadFailed, InvalidValue,
        TooManyRequests.

        It goes on when nobody follows it any more.
        """
        reference = _parsed(request)
        name = reference.name
        if name not in self._tasks or self._state[name].stage in ("done", "failed"):
            if len(self._tasks) >= RUNNING:
                raise TooManyRequests(f"{RUNNING} downloads run already, which is as many as may. Wait for one to end.", retry_after=30)
            self._state.pop(name, None)
            ended = [each for each in self._state if each not in self._tasks]
            for oldest in ended[: max(0, len(self._state) - KEPT + 1)]:
                del self._state[oldest]
            self._state[name] = DownloadProgress(name=name, repo=reference.repo, source=reference.source, stage="listing")
            self._tasks[name] = asyncio.create_task(self._run(reference))
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
        self._is_closing = True
        for process in self._processes:
            _end(process)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, reference: Reference) -> None:
        name = reference.name
        logs.models.info("Downloading {} from {} as {}", reference.repo, reference.source, name)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "src.download", "--json", f"--models-dir={self._settings.models_path}", *_arguments(reference),
                stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd=ROOT,
            )  # fmt: skip
            self._processes.add(process)
            if self._is_closing:
                _end(process)
            try:
                await self._listen(name, process)
            finally:
                _end(process)  # where nobody reads what it says any more
                await process.wait()
                self._processes.discard(process)
        except (OSError, ValueError, msgspec.MsgspecError) as error:  # ValueError: a line longer than asyncio reads
            logs.models.error("The download of {} failed: {}", name, error)
            await self._tell(name, _Line("failed", 0, 0, str(error)))
        finally:
            if self._tasks[name] is asyncio.current_task():
                del self._tasks[name]

    async def _listen(self, name: str, process: Process) -> None:
        """Until it has ended. Raises ValueError, MsgspecError of what it may not say."""
        assert process.stdout is not None
        async for text in process.stdout:
            line = msgspec.json.decode(text, type=_Line)
            await self._tell(name, line)
            if line.stage in ("done", "failed"):
                logs.models.info("The download of {} ended: {}", name, line.reason or line.stage)
        status = await process.wait()
        if self._state[name].stage not in ("done", "failed"):
            await self._tell(name, _Line("failed", 0, 0, f"its process ended with status {status}; ask again, it resumes where it stopped"))

    async def _tell(self, name: str, line: _Line) -> None:
        async with self._changed:
            self._state[name] = msgspec.structs.replace(
                self._state[name], stage=line.stage, bytes_read=line.bytes_read, bytes_total=line.bytes_total, reason=line.reason
            )
            self._changed.notify_all()


def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()


def _parsed(request: Download) -> Reference:
    """Raises InvalidValue, which names the field."""
    try:
        return Reference.parse(request.repo, request.source, name=request.name, revision=request.revision, include=request.include)
    except InvalidReference as error:
        raise InvalidValue(f"{error}.", param=error.field) from error


def _arguments(reference: Reference) -> list[str]:
    """None of them can be read as another option."""
    patterns = [f"--include={pattern}" for pattern in reference.include]
    return [f"--source={reference.source}", f"--name={reference.name}", f"--revision={reference.revision}", *patterns, "--", reference.repo]
