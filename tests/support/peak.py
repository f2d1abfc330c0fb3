"""How much memory the processes below a test take. By looking again and again: not every kernel keeps the most."""

import contextlib

import psutil

from tests.support.watching import watching


class Peak:
    """The most that one of them takes meanwhile, in bytes."""

    def __init__(self) -> None:
        self.bytes = 0
        self._watching = watching(self._look, 0.005)

    def __enter__(self) -> "Peak":
        self._watching.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._watching.__exit__(None, None, None)

    def _look(self) -> None:
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                self.bytes = max(self.bytes, process.memory_info().rss)
