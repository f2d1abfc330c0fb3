"""A list of a reply as JSON, encoded as it grows: its bytes are a tenth of its objects."""

from collections.abc import Sequence

import msgspec


class EncodedList:
    def __init__(self) -> None:
        self._json = bytearray(b"[")

    def extend(self, items: Sequence[object]) -> None:
        if items:
            if len(self._json) > 1:
                self._json += b","
            self._json += memoryview(msgspec.json.encode(items))[1:-1]

    def close(self) -> msgspec.Raw:
        """To be put where the list belongs. Nothing can be added any more."""
        self._json += b"]"
        return msgspec.Raw(self._json)
