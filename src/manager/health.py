"""Tells systemd how the service is, by asking it as a client would: ready, alive, or why not yet. Changes nothing."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

import msgspec

from src.notify import Notifier

STARTING_SECONDS = 0.5  # between two looks before the service is ready
READY_SECONDS = 10.0  # and after, where there is no watchdog
ANSWER_SECONDS = 20.0
PATIENCE = 120  # seconds that systemd is asked to wait on while a model loads

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


async def keep_informed(notifier: Notifier, url: str, is_loading: Callable[[], bool]) -> None:
    """READY=1 once a model can be asked, then WATCHDOG=1 as long as requests are answered. Runs till it is cancelled."""
    pause = float(os.environ.get("WATCHDOG_USEC") or 3e6 * READY_SECONDS) / 3e6
    ready, told = False, ""
    while True:
        status, reason = await _ask(url, min(ANSWER_SECONDS, max(pause, STARTING_SECONDS)))
        if status == 200 and not ready:
            ready = True
            notifier.send("READY=1")
        if ready and status:  # a 503 too is an answer: a start anew would not make it better
            notifier.send("WATCHDOG=1")
        elif is_loading():
            notifier.send(f"EXTEND_TIMEOUT_USEC={PATIENCE * 1_000_000}")
        text = "serving" if status == 200 else reason
        if text != told:
            notifier.send(f"STATUS={text}")
            told = text
        await asyncio.sleep(pause if ready else STARTING_SECONDS)


async def _ask(url: str, patience: float) -> tuple[int | None, str]:
    """The status of GET /health, None without an answer, and the reason for any but 200."""
    try:
        head, _, body = (await asyncio.wait_for(_get(url), patience)).partition(b"\r\n\r\n")
        status = int(head.split(None, 2)[1])
        # Where there are keys, the reason is for those who have one; that nothing can be asked yet is for all.
        reason = "" if status == 200 else str(msgspec.json.decode(body).get("reason", "not ready: logs/model_operations.log says why"))
        return status, reason.replace("\n", " ")[:200]
    except (OSError, asyncio.TimeoutError, ssl.SSLError):
        return None, "not answering"
    except (ValueError, IndexError, LookupError, TypeError, msgspec.MsgspecError):
        return None, "answering something that is not an answer"


async def _get(url: str) -> bytes:
    address = urlsplit(url)
    reader, writer = await _connect(address)
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _connect(address: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.scheme == "unix":
        return await asyncio.open_unix_connection(address.path)
    host = address.hostname or ""
    tls = ssl.create_default_context() if address.scheme == "https" else None
    if tls:  # our own certificate, under a name that it need not have
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_connection(_ANY.get(host, host), address.port, ssl=tls)
