"""How much memory the processes below a test take. By looking again and again: not every kernel keeps the most."""

import contextlib
import threading

import psutil


class Peak:
    """The most that one of them takes meanwhile, in bytes."""

    def __enter__(self) -> "Peak":
        self.bytes, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            for process in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    self.bytes = max(self.bytes, process.memory_info().rss)
