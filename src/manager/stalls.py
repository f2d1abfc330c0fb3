"""Which runners hang: a step that does not end, or no answer at all. Decides by what it is shown; does nothing itself."""

import time

from src.protocol import RunnerStats

LONGEST_LOOK = 5.0  # seconds that may count between two looks: after a pause of the whole machine nobody was silent


class Stalls:
    def __init__(self, limit: float) -> None:
        """`limit` in seconds; 0: nothing hangs."""
        self._limit = limit
        self._silent: dict[int, float] = {}  # seconds without an answer, by process id
        self._stuck: dict[int, int] = {}  # the number of the step that had taken too long at the last look
        self._looked_at = time.monotonic()

    def look(self, runners: dict[int, RunnerStats | None]) -> dict[int, str]:
        """What each runner said of itself now, by process id; None where it said nothing. Returns those that hang, and why."""
        now = time.monotonic()
        passed, self._looked_at = min(LONGEST_LOOK, now - self._looked_at), now
        self._silent = {pid: self._silent.get(pid, 0.0) + passed for pid, stats in runners.items() if stats is None}
        slow = {pid: stats.steps for pid, stats in runners.items() if stats and stats.step_age > self._limit}
        # Seen twice: after a pause of the whole machine the first look finds every step old.
        stuck = [pid for pid, step in slow.items() if self._stuck.get(pid) == step]
        self._stuck = slow
        if not self._limit:
            return {}
        return {
            **{pid: f"a hang: no answer for {seconds:.0f} s" for pid, seconds in self._silent.items() if seconds > self._limit},
            **{pid: f"a hang: no step for {self._limit:g} s" for pid in stuck},
        }
