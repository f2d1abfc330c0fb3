"""CPU and memory of the server's own processes, by psutil. Knows their places in the tree, not what they do."""

import contextlib
import os

import psutil

from src.manager.footprint import physical_bytes
from src.protocol import ProcessUse


class ProcessTable:
    """Remembers its processes between samples: CPU use is what was used since the sample before."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}

    def sample(self, runners: dict[int, str]) -> list[ProcessUse]:
        """Master, gateway workers, this manager, and `runners` (process id: model)."""
        names = {os.getppid(): "master", os.getpid(): "manager", **dict.fromkeys(runners, "runner")}
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(os.getppid()).children():
                names.setdefault(child.pid, "gateway")
        self._known = {pid: process for pid, process in self._known.items() if pid in names}
        uses = []
        for pid, name in names.items():
            with contextlib.suppress(psutil.Error):  # gone since
                process = self._known.setdefault(pid, psutil.Process(pid))
                with process.oneshot():
                    uses.append(
                        ProcessUse(
                            name=name,
                            pid=pid,
                            cpu_percent=process.cpu_percent(),
                            cpu_seconds=round(sum(process.cpu_times()[:2]), 2),
                            rss_bytes=physical_bytes(pid) or process.memory_info().rss,
                            threads=process.num_threads(),
                            model=runners.get(pid),
                        )
                    )
        return uses
