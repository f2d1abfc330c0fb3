"""How deep JSON is nested, and of how much. Knows nothing of what it is."""

from typing import Any

_NEITHER = bytes(set(range(256)) - set(b'[{"'))


def is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested in each other more than so many times. Looks no further than it has to."""
    inner = [value]
    for _ in range(levels):
        children = (child for one in inner for child in (one.values() if isinstance(one, dict) else one))
        inner = [child for child in children if isinstance(child, (dict, list))]
        if not inner:
            return False
    return True


def has_more_containers(data: bytes, most: int) -> bool:
    """Whether JSON's text has more lists and objects than that. Brackets in its strings are none."""
    if data.count(b"[") + data.count(b"{") <= most:
        return False
    bare = data.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NEITHER)
    return sum(map(len, bare.split(b'"')[::2])) > most
