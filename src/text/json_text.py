"""JSON as RFC 8259 has it, and as others can read it. Python's own module takes and writes NaN, and half a surrogate pair."""

import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

HALF = re.compile("[\ud800-\udfff]")
HIGH = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}")
LOW = re.compile(r"\\u[dD][c-fC-F][0-9a-fA-F]{2}")
LONE = "\\ufffd"


def parsed(text: str) -> Any:
    """Raises ValueError, also for a number that is no finite one, and RecursionError."""
    return json.loads(text, parse_constant=_refused, parse_float=_finite, parse_int=_whole)


def written(value: Any) -> str:
    """Of what `parsed` returns. Half a surrogate pair is no character, and UTF-8 cannot hold it."""
    return HALF.sub("\ufffd", json.dumps(value, ensure_ascii=False))


def is_finite(digits: str) -> bool:
    """Whether a number in JSON is one for readers that have 64 bits for it: 1e999 is not."""
    return not math.isinf(float(digits))


def _refused(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _whole(digits: str) -> int:
    return int(digits) if is_finite(digits) else _refused(digits)


def _finite(digits: str) -> float:
    return float(digits) if is_finite(digits) else _refused(digits)


class Halves:
    """Emits the parts of a JSON string as they come, each escape as one part, with U+FFFD for half a surrogate pair."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._high = ""

    def __call__(self, part: str) -> None:
        high, self._high = self._high, ""
        if high and LOW.fullmatch(part):
            self._emit(high + part)
            return
        if high:
            self._emit(LONE)
        if HIGH.fullmatch(part):
            self._high = part
        else:
            self._emit(LONE if LOW.fullmatch(part) else part)
