"""What the master and its workers share: that the server stops, and how many workers wait for a successor. Inherited by fork."""

import mmap
import os


class Handover:
    def __init__(self) -> None:
        self._flag = mmap.mmap(-1, 1)  # 1 once the server stops, 2 once it stops at once
        self._reading = self._writing = -1

    def open(self) -> None:
        """Called once in the master, before it forks a worker."""
        self._reading, self._writing = os.pipe()  # holds a byte for each worker that waits
        os.set_blocking(self._reading, False)

    def stop(self, *, at_once: bool = False) -> None:
        """From now on the server stops. A worker could not tell this from being replaced by its signal."""
        self._flag[0] = max(2 if at_once else 1, self._flag[0])

    @property
    def stopping(self) -> bool:
        return self._flag[0] > 0

    @property
    def stopping_at_once(self) -> bool:
        return self._flag[0] == 2

    def ask_succession(self) -> None:
        """For a worker that wants to be replaced, before it has the master start another."""
        os.write(self._writing, b".")

    def take_succession(self) -> bool:
        """For a new worker: is it somebody's successor? Each succession is taken once."""
        try:
            return bool(os.read(self._reading, 1))
        except BlockingIOError:
            return False


handover = Handover()
