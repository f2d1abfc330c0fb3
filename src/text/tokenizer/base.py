"""Characters to tokens and back: the contract, and a tokenizer without a model. Knows nothing of chat, engines or files."""

from abc import ABC, abstractmethod
from functools import cached_property

from src.text.tokenizer.guard import SENTINEL_SPLIT

SOON_ENCODED = 16  # bytes for each token that is allowed


class Tokenizer(ABC):
    """One model's vocabulary. Any thread may use it; the one that closes it must be the last."""

    vocab_size: int
    end_tokens: tuple[int, ...]  # any of them ends an answer, as in the engine
    bos_token: int | None  # None where the model was trained without
    bos_text: str  # what a chat template writes for it; "" where there is none
    eos_text: str
    special_texts: tuple[str, ...]  # control tokens, as encode parses them: what user text must not smuggle in
    chat_template: str | None  # Jinja source
    tool_template: str | None = None  # that of a model with another template for requests with tools
    embedding_end_token: int | None = None  # what ends a text that is to be embedded, where the model was trained so
    fim_tokens: tuple[int, int, int] | None = None  # of fill-in-the-middle: before the prefix, the suffix and what fills the middle

    def encode(self, text: str, *, add_bos: bool) -> list[int]:
        """Ids of a text. A special token's text becomes that token, except where a SENTINEL_SPLIT cuts it, which is dropped.

        With `add_bos`, a model that wants a BOS token gets one, but no second one before a text that begins with its own.
        """
        ids: list[int] = []
        if add_bos and self.bos_token is not None and not (self.bos_text and text.startswith(self.bos_text)):
            ids.append(self.bos_token)
        pieces = [piece for piece in text.split(SENTINEL_SPLIT) if piece]
        for index, piece in enumerate(pieces):
            ids += self._encode_piece(piece, first=index == 0)
        return ids

    def surely_exceeds(self, text: str, limit: int) -> bool:
        """Whether the text has more than `limit` tokens, as far as its size alone can tell: a prompt of many
        megabytes is refused before it costs seconds of encoding."""
        size = len(text.encode(errors="replace"))
        # Most texts are done here: to look for the longest token takes longer than to encode what may be one of them too many.
        return size > limit * SOON_ENCODED and size > limit * self.longest_token

    @property
    @abstractmethod
    def longest_token(self) -> int:
        """Bytes of text that one token can stand for, at most."""

    @abstractmethod
    def _encode_piece(self, text: str, *, first: bool) -> list[int]:
        """Ids of a text that is not empty. Unless it is the `first`, it goes on where another piece ended."""

    @abstractmethod
    def bytes_of(self, token: int) -> bytes:
        """The bytes a token stands for, perhaps only a part of a character. b"" for control tokens."""

    def display_bytes(self, token: int) -> bytes:
        """A token as it is shown: its bytes, or a control token's text."""
        return self.bytes_of(token) or self._special_text(token).encode()

    @abstractmethod
    def _special_text(self, token: int) -> str:
        """The text of a control token; "" where it has none."""

    @abstractmethod
    def close(self) -> None:
        """Give its memory back. The tokenizer is of no use afterwards."""


class ByteTokenizer(Tokenizer):
    """A token is a byte, and 256 the end. For the echo engine and for tests."""

    END = 256
    END_TEXT = "<|end|>"

    vocab_size = 257
    end_tokens = (END,)
    bos_token = None
    bos_text = ""
    eos_text = END_TEXT
    special_texts = (END_TEXT,)
    chat_template = "{% for message in messages %}{{ message.role }}: {{ message.content or '' }}\n{% endfor %}"

    @cached_property
    def longest_token(self) -> int:
        return len(self.END_TEXT)

    def _encode_piece(self, text: str, *, first: bool) -> list[int]:
        ids: list[int] = []
        for index, part in enumerate(text.split(self.END_TEXT)):
            if index:
                ids.append(self.END)
            ids += part.encode(errors="replace")
        return ids

    def bytes_of(self, token: int) -> bytes:
        return b"" if token == self.END else bytes([token])

    def _special_text(self, token: int) -> str:
        return self.END_TEXT if token == self.END else ""

    def close(self) -> None:
        pass
