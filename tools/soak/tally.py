"""Every request that was asked, and how it ended: once, and in one of the ways there are. Sends nothing."""

import msgspec

from tools.soak.reference import RIGHT, TIE, WRONG

ERROR, LEFT, LOST = "error", "left", "lost"
ENDS = (RIGHT, TIE, WRONG, ERROR, LEFT, LOST)


class Odd(msgspec.Struct, kw_only=True):
    """A request that did not end as it should, or whose answer differs from its reference."""

    at: float  # seconds since the start
    kind: str
    end: str
    why: str


class Tally(msgspec.Struct):
    """`ends[kind][end]`. right: text as it should be, or the error that a bad request should get; near tie: see reference.py;
    error: a good request's, in OpenAI's form; left: by its client, on purpose; lost: neither text nor error."""

    asked: dict[str, int] = {}
    ends: dict[str, dict[str, int]] = {}
    errors: dict[str, int] = {}  # by code
    asked_again: int = 0  # connections that a killed gateway worker broke off, and whose clients asked again
    odd: list[Odd] = []
    times: list[tuple[float, str]] = []  # when each ended, and how

    def ask(self, kind: str) -> None:
        self.asked[kind] = self.asked.get(kind, 0) + 1

    def end(self, at: float, kind: str, end: str, why: str = "") -> None:
        """`why`: of an error its code, a colon and its message."""
        of = self.ends.setdefault(kind, {})
        of[end] = of.get(end, 0) + 1
        self.times.append((round(at, 2), end))
        if end == ERROR:
            code = why.partition(":")[0]
            self.errors[code] = self.errors.get(code, 0) + 1
        if end in (WRONG, LOST, ERROR, TIE):
            self.odd.append(Odd(at=round(at, 2), kind=kind, end=end, why=why[:500]))

    def total(self, end: str) -> int:
        return sum(of.get(end, 0) for of in self.ends.values())

    @property
    def total_asked(self) -> int:
        return sum(self.asked.values())
