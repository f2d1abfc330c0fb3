"""How deep a JSON value is nested. Knows nothing of what it is."""

from typing import Any


def is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested in each other more than so many times. Looks no further than it has to."""
    inner = [value]
    for _ in range(levels):
        inner = [child for one in inner for child in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())]
        if not inner:
            return False
    return any(isinstance(one, (dict, list)) for one in inner)
