"""Tells systemd, or the master in its place, how the service is, by asking it as a client would. Changes nothing."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from src.systemd import Notifier

STARTING_SECONDS = 0.5  # between two looks before the service is ready
READY_SECONDS = 10.0  # and after, where there is no watchdog
ANSWER_SECONDS = 20.0
PATIENCE = 120  # seconds that systemd is asked to wait on while a model loads


async def keep_informed(notifier: Notifier, path: Path, is_loading: Callable[[], bool]) -> None:
    """READY=1 once a model can be asked, WATCHDOG=1 as long as requests are answered: also before, for a manager that takes a crashed
    one's place loads its models again while the service counts as ready. Runs till it is cancelled.

    `path`: of the socket that the workers answer beside the one for clients, who may take all its places.
    """
    pause = float(os.environ.get("WATCHDOG_USEC") or 3e6 * READY_SECONDS) / 3e6
    ready, told = False, ""
    while True:
        status, reason = await _ask(path, min(ANSWER_SECONDS, max(pause, STARTING_SECONDS)))
        if status == 200 and not ready:
            ready = True
            notifier.send("READY=1")
        if status:  # a 503 too is an answer: a start anew would not make it better
            notifier.send("WATCHDOG=1")
        if not ready and is_loading():
            notifier.send(f"EXTEND_TIMEOUT_USEC={PATIENCE * 1_000_000}")
        text = "serving" if status == 200 else reason
        if text != told:
            notifier.send(f"STATUS={text}")
            told = text
        await asyncio.sleep(pause if ready else STARTING_SECONDS)


async def _ask(path: Path, patience: float) -> tuple[int | None, str]:
    """The status of GET /health, None without an answer, and the reason for any but 200."""
    try:
        head, _, body = (await asyncio.wait_for(_get(path), patience)).partition(b"\r\n\r\n")
        status = int(head.split(None, 2)[1])
        # Where there are keys, the reason is for those who have one; that nothing can be asked yet is for all.
        reason = "" if status == 200 else str(msgspec.json.decode(body).get("reason", "not ready: logs/model_operations.log says why"))
        return status, reason.replace("\n", " ")[:200]
    except (OSError, asyncio.TimeoutError):
        return None, "not answering"
    except (ValueError, IndexError, LookupError, TypeError, msgspec.MsgspecError):
        return None, "answering something that is not an answer"


async def _get(path: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
