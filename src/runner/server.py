"""A runner's Unix socket: one request per connection, its events back, a closed connection is a cancel. Knows no text."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from loguru import logger
from msgspec.structs import replace

from src.errors import InternalError, QueueTimeout, ServiceError
from src.protocol import (
    AskStats,
    DescribeTokenizer,
    Detokenize,
    Embed,
    Failed,
    Generate,
    Message,
    ProtocolError,
    RunnerRequest,
    RunnerStats,
    Tokenize,
    decode,
    encode,
)
from src.protocol.listen import UnixServer
from src.runner.engine_loop import EngineLoop
from src.runner.places import Places

Asked = Generate | Embed | Tokenize | Detokenize | DescribeTokenizer
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
        self._on_first_answer: Callable[[], None] | None = on_first_answer
        self._places = Places(max_requests)
        self._open = 0  # sequences of requests for text, and other requests; running and waiting
        self._resumed = 0  # requests that another runner had begun
        self._connections: set[asyncio.Task[None]] = set()

    async def bind(self, path: str) -> None:
        """From here on the socket can be connected to."""
        self._server = UnixServer(path, self._connected)
        await self._server.start()

    async def drain(self) -> None:
        """Accept nothing more, and let the running requests end."""
        self._server.unlink()
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

    async def _events(self, request: Asked) -> AsyncGenerator[Message, None]:
        resumed = isinstance(request, Generate) and bool(request.crashes or request.resume)
        sequences = request.n * len(request.prompts) if isinstance(request, Generate) else 1
        try:
            with self._places.hold(request.key, self._places.wanted(request), resumed=resumed):
                self._resumed += resumed
                self._open += sequences
                try:
                    async with contextlib.aclosing(self._answers[type(request)](request)) as events:
                        async for event in events:
                            yield event
                finally:
                    self._open -= sequences
            if self._on_first_answer and isinstance(request, Generate):
                self._on_first_answer()
                self._on_first_answer = None
        except ServiceError as error:
            if isinstance(error, QueueTimeout):
                error.retry_after = self._places.retry_after()
            yield Failed.of(error)

    def stats(self) -> RunnerStats:
        engine = self._loop.stats()
        return RunnerStats(
            engine=replace(engine, running=min(engine.running, self._open), waiting=max(0, self._open - engine.running)),
            resumed=self._resumed,
            preempted=self._loop.preempted(),
            invalid_outputs=self._loop.validity.invalid,
            steps=self._loop.steps,
            step_seconds=round(self._loop.busy_seconds, 3),
            step_age=round(self._loop.step_age(), 3),
            tokens_per_second=round(self._loop.tokens_per_second(), 1),
        )
