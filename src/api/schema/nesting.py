"""How deeply JSON is nested, and how many values it has: of its text, before it is decoded, and of what was decoded."""

from typing import Any

# Brackets, commas and quotes alone; objects count as arrays.
_ALIKE = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b'[]{},"'))
_PIECE = 2**16  # bytes that are split at once: a list of all strings would take many times the text's memory


class Outline:
    """The brackets and commas of a JSON text, without those in strings. Made in a time and memory that the text's size bounds."""

    def __init__(self, data: bytes) -> None:
        bare = data.replace(rb"\\", b"").replace(rb"\"", b"").translate(_ALIKE, _OTHERS)
        self._strings = bare.count(b'"') // 2  # names too
        self._marks = bare.replace(b'""', b"")  # whatever stands beside them stays within a string or without
        self._outside: bytes | None = None

    def has_more_containers(self, most: int) -> bool:
        """More than `most` arrays and objects."""
        return self._marks.count(b"[") > most and self._structure.count(b"[") > most

    def has_more_values(self, most: int) -> bool:
        """More than `most` values, beside the one that the text is. A name is none; an empty array or object may count as two."""
        if self._strings > 2 * most:
            return True
        commas_and_arrays = self._marks.count(b",") + self._marks.count(b"[")
        return commas_and_arrays > most and self._structure.count(b",") + self._structure.count(b"[") > most

    def is_deeper(self, levels: int) -> bool:
        """Arrays and objects are nested in each other more than `levels` times; or the text is no JSON."""
        if self._marks.count(b"[") <= levels:
            return False
        brackets = self._structure.replace(b",", b"")
        for _ in range(levels):
            if not brackets:
                return False
            brackets = brackets.replace(b"[]", b"")
        return bool(brackets)

    @property
    def _structure(self) -> bytes:
        if self._outside is None:
            self._outside = _without_strings(self._marks)
        return self._outside


def _without_strings(marks: bytes) -> bytes:
    outside: list[bytes] = []
    is_inside = 0
    for start in range(0, len(marks), _PIECE):
        parts = marks[start : start + _PIECE].split(b'"')
        outside.append(b"".join(parts[is_inside::2]))
        is_inside = (is_inside + len(parts) - 1) % 2
    return b"".join(outside)


def has_more_values(value: Any, most: int) -> bool:
    """Whether lists and objects hold more than `most` values in all. Looks no further than it has to."""
    inner, count = [value], 0
    while inner:
        container = inner.pop()
        count += len(container)
        if count > most:
            return True
        children = container.values() if isinstance(container, dict) else container
        inner += [child for child in children if isinstance(child, (dict, list))]
    return False


def is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested in each other more than `levels` times. Looks no further than it has to."""
    inner = [value]
    for _ in range(levels):
        children = (child for value in inner for child in (value.values() if isinstance(value, dict) else value))
        inner = [child for child in children if isinstance(child, (dict, list))]
        if not inner:
            return False
    return True
