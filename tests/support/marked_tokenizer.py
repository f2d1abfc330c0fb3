"""A tokenizer for tests in which some texts are one token: bytes, and markers as control tokens or as words."""

import re

from src.text.tokenizer.base import ByteTokenizer


class MarkedTokenizer(ByteTokenizer):
    def __init__(self, controls: tuple[str, ...] = (), words: tuple[str, ...] = ()) -> None:
        self.markers = {text: ByteTokenizer.vocab_size + place for place, text in enumerate((*controls, *words))}
        self.texts = {id: text for text, id in self.markers.items()}
        self.controls = frozenset(controls)
        self.vocab_size = ByteTokenizer.vocab_size + len(self.markers)
        self.special_texts = (self.END_TEXT, *controls)
        self._parts = re.compile("(" + "|".join(map(re.escape, self.markers)) + ")") if self.markers else None

    def _encode_piece(self, text: str, *, first: bool) -> list[int]:
        parts = self._parts.split(text) if self._parts else [text]
        ids: list[int] = []
        for part in filter(None, parts):
            ids += [self.markers[part]] if part in self.markers else super()._encode_piece(part, first=first)
        return ids

    def bytes_of(self, token: int) -> bytes:
        if token not in self.texts:
            return super().bytes_of(token)
        return b"" if self.texts[token] in self.controls else self.texts[token].encode()

    def _special_text(self, token: int) -> str:
        return self.texts.get(token) or super()._special_text(token)
