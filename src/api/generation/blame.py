"""Whose fault was it that a runner died? Decided for one request, from the exits of the runners that had it.

src/runner/quarantine.py computes suspects one at a time: whoever is in quarantine when a runner dies of itself gets a strike.
"""

from src.errors import EngineCrashed
from src.protocol.management import NO_NUMBERS

OUTSIDE = ("signal SIGKILL", "signal SIGTERM", "signal SIGINT", "signal SIGHUP", NO_NUMBERS)  # exits that need not be a request's fault
GUILTY = 2  # strikes
LONG_HARMLESS = 256  # tokens from a runner after which the crashes before it are forgotten


class Blame:
    """One request's."""

    def __init__(self) -> None:
        self.crashes = 0  # of runners, in which the request may have had a part
        self._strikes = 0
        self._in_quarantine = False
        self._computed = True  # by the runner that has it: one that waits for its quarantine is not

    def quarantined(self, open: bool) -> None:
        """The runner computes the request alone from now on; or not alone any more, for it has shown that it is harmless."""
        self._in_quarantine, self._computed = open, True

    def runner_died(self, exit: str, tokens: int, *, fruitless: bool) -> None:
        """`tokens`: those that came from it; `fruitless`: none came, nor from the runner before. Raises EngineCrashed if it died
        of this request."""
        if tokens > LONG_HARMLESS:
            self.crashes = self._strikes = 0
        own = exit not in OUTSIDE
        if self._in_quarantine:
            self._strikes += GUILTY if own and self.crashes else 1
        if self._computed and (own or fruitless):
            self.crashes += 1
        self._in_quarantine, self._computed = False, not self.crashes
        if self._strikes >= GUILTY:
            raise crashed(exit)


def crashed(exit: str) -> EngineCrashed:
    return EngineCrashed(f"The model's process died while it worked on this request, more than once, the last time by {exit}.")
