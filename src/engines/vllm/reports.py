"""Jobs that failed where vLLM draws, told to the engine by a pipe: what is raised there would end the core for all."""

import contextlib
import fcntl
import os
import sys

import msgspec

from src.engines.finite import invalid_row, nothing_to_draw
from src.errors import EngineError

ROOM = 2**20  # bytes that the kernel holds: of every job of a batch from every rank, while the engine waits for their outputs


class Report(msgspec.Struct, frozen=True):
    job_id: int
    masks: list[str]  # those that left nothing of its row; none: the model computed NaN or infinity


class Reports:
    """A report is there before its step's outputs are."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        if sys.platform == "linux":  # which vLLM needs anyway
            fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, ROOM)
        self.path = f"/proc/{os.getpid()}/fd/{self._writer}"  # for send(), by processes of this user

    def read(self) -> dict[int, EngineError]:
        """The errors of jobs that have failed since. Every rank reports them."""
        lines = b""
        with contextlib.suppress(BlockingIOError):
            lines = os.read(self._reader, ROOM)
        reports = msgspec.json.Decoder(Report).decode_lines(lines)
        return {report.job_id: nothing_to_draw(report.masks) if report.masks else invalid_row() for report in reports}

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


def send(path: str, report: Report) -> None:
    try:
        writer = os.open(path, os.O_WRONLY)
    except FileNotFoundError:  # this rank is on another machine; one of those beside the engine reports too
        return
    try:
        os.write(writer, msgspec.json.encode(report) + b"\n")
    finally:
        os.close(writer)
