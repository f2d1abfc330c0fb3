"""A runner's Unix socket: one request per connection, its events back, a closed connection is a cancel. Knows no text."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from loguru import logger

from src.errors import InternalError, InvalidValue, QueueTimeout, ServiceError, TooManyRequests
from src.listening import listen
from src.protocol import (
    AskStats,
    Failed,
    Generate,
    Message,
    ProtocolError,
    RunnerRequest,
    RunnerStats,
    decode,
    encode,
)
from src.runner.loop import EngineLoop
from src.runner.pace import Pace

Answer = Callable[[Any], AsyncGenerator[Message, None]]  # a request to its events; closing them cancels it


class RunnerServer:
    """Serves one model's socket."""

    def __init__(
        self,
        loop: EngineLoop,
        answers: Mapping[type[Message], Answer],
        max_requests: int,
        on_first_answer: Callable[[], None] = lambda: None,
    ) -> None:
        """`answers`: for each kind of request, what answers it. They may raise ServiceError."""
        self._loop = loop
        self._answers = answers
        self._max_requests = max_requests
        self._on_first_answer: Callable[[], None] | None = on_first_answer
        self._pace = Pace()
        self._resumed = 0  # requests that another runner had begun
        self._open = 0  # choices of requests, running and waiting
        self._connections: set[asyncio.Task[None]] = set()

    async def bind(self, path: str) -> None:
        """From here on the socket can be connected to."""
        self._path = path
        self._server = await listen(path, self._connected)

    async def drain(self) -> None:
        """Accept nothing more, and let the running requests end."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        await asyncio.sleep(0.05)  # those that connected a moment before are still to be accepted: a close would reset them
        self._server.close()
        while self._connections:
            await asyncio.wait(self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the gateway hung up, which is the cancel
        except ProtocolError as error:
            logger.warning("A connection was closed: {}", error)
        except Exception:
            logger.exception("A request failed")
            with contextlib.suppress(OSError):
                writer.write(encode(Failed.of(InternalError("The server made a mistake; its log says which."))))
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
        except ValueError as error:  # longer than MAX_LINE_BYTES
            raise ProtocolError(str(error)) from error
        if not line:
            return
        request: RunnerRequest = decode(line, RunnerRequest)
        if isinstance(request, AskStats):
            writer.write(encode(self.stats()))
            return
        sending = asyncio.ensure_future(self._send(self._events(request), writer))
        hung_up = asyncio.ensure_future(reader.read(1))  # nothing follows a request: this ends with the connection
        try:
            await asyncio.wait({sending, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, hung_up):
                task.cancel()
            await asyncio.gather(sending, hung_up, return_exceptions=True)

    async def _send(self, events: AsyncGenerator[Message, None], writer: asyncio.StreamWriter) -> None:
        async with contextlib.aclosing(events):
            async for event in events:
                writer.write(encode(event))
                await writer.drain()

    async def _events(self, request: Message) -> AsyncGenerator[Message, None]:
        choices = request.n * len(request.prompts) if isinstance(request, Generate) else 1
        if choices > self._max_requests:
            text = f"{choices} sequences are asked for at once, but MAX_CONCURRENT_REQUESTS allows {self._max_requests}. Ask for fewer."
            yield Failed.of(InvalidValue(text, "n" if isinstance(request, Generate) and request.n > 1 else "prompt"))
            return
        if self._open + choices > self._max_requests:
            error = TooManyRequests(
                f"{self._open} sequences are running or waiting on this model; with this request they would be more than "
                f"the {self._max_requests} that MAX_CONCURRENT_REQUESTS allows.",
                retry_after=self._pace.seconds_for(self._open + choices - self._max_requests),
            )
            yield Failed.of(error)
            return
        self._open += choices
        self._resumed += isinstance(request, Generate) and bool(request.deaths or request.resume)
        try:
            async with contextlib.aclosing(self._answers[type(request)](request)) as events:
                async for event in events:
                    yield event
            if self._on_first_answer and isinstance(request, Generate):
                self._on_first_answer()
                self._on_first_answer = None
        except ServiceError as error:
            if isinstance(error, QueueTimeout):
                error.retry_after = self._pace.seconds_for(1)
            yield Failed.of(error)
        finally:
            self._open -= choices
            self._pace.ended(choices)

    def stats(self) -> RunnerStats:
        stats = self._loop.stats()
        return RunnerStats(
            # Of the requests open, those that have no slot wait: in the engine's queue, or for their prompt to be encoded.
            running=min(stats.running, self._open),
            waiting=max(0, self._open - stats.running),
            slots=stats.slots,
            kv_used=stats.kv_used,
            kv_total=stats.kv_total,
            longest_wait=round(stats.longest_wait, 3),
            admitted=stats.admitted,
            waited_seconds=round(stats.waited_seconds, 3),
            prefix_hit=stats.prefix_hit,
            prefix_asked=stats.prefix_asked,
            generated=stats.generated,
            resumed=self._resumed,
            steps=self._loop.steps,
            step_seconds=round(self._loop.busy_seconds, 3),
            compute_seconds=round(stats.compute_seconds, 3),
            tokens_per_second=round(self._loop.tokens_per_second(), 1),
            step_age=round(self._loop.step_age(), 3),
        )
