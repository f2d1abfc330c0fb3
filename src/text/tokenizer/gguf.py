"""The vocabulary of a GGUF file, by llama.cpp, without the model's weights. Knows nothing of engines: any engine's GGUF will do."""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path

import llama_cpp.llama_cpp as ll

from src.errors import ModelLoadFailed
from src.text.tokenizer.base import Tokenizer
from src.text.tokenizer.guard import MARKER, SENTINEL_LEAD, any_of

LOG_LEVEL_ERROR = 4  # GGML_LOG_LEVEL_ERROR
CONTROL = ll.LLAMA_TOKEN_ATTR_CONTROL | ll.LLAMA_TOKEN_ATTR_UNKNOWN
SPAN_CHARACTERS = 8192
RUN_CHARACTERS = 4096
LONG_RUN = re.compile(rf"(?<!\S)\S{{{RUN_CHARACTERS + 1},}}|(?<!\s)\s{{{RUN_CHARACTERS + 1},}}")


def _print_errors(level: int, text: bytes, _: object) -> None:
    if level == LOG_LEVEL_ERROR:
        sys.stderr.write(text.decode(errors="replace"))


_LOG = ll.llama_log_callback(_print_errors)  # llama.cpp keeps a bare pointer to it: it must live as long as the process


class GGUFTokenizer(Tokenizer):
    """llama.cpp's tokenizer. Its calls neither lock nor write the vocabulary, so threads may share it."""

    def __init__(self, path: str | Path) -> None:
        """Raises ModelLoadFailed, naming the file."""
        name = Path(path).name
        self._model: ll.llama_model_p | None = _load(path, name)
        self._vocab = ll.llama_model_get_vocab(self._model)
        kind = ll.llama_vocab_type(self._vocab)
        if kind == ll.LLAMA_VOCAB_TYPE_NONE:  # encoding with it would abort the process
            self.close()
            raise ModelLoadFailed(f"{name} has no vocabulary. Use the GGUF file of a text model.")
        self.vocab_size = ll.llama_vocab_n_tokens(self._vocab)
        self.end_tokens = tuple(token for token in range(self.vocab_size) if ll.llama_vocab_is_eog(self._vocab, token))
        bos = ll.llama_vocab_bos(self._vocab)
        self.bos_token = bos if bos >= 0 and ll.llama_vocab_get_add_bos(self._vocab) else None
        self.embedding_end_token = self._find_embedding_end_token()
        self.bos_text = self._text(bos)
        self.eos_text = self._text(ll.llama_vocab_eos(self._vocab))
        self.special_texts = tuple(self._find_special_texts())
        fim = ll.llama_vocab_fim_pre(self._vocab), ll.llama_vocab_fim_suf(self._vocab), ll.llama_vocab_fim_mid(self._vocab)
        self.fim_tokens = fim if min(fim) >= 0 else None
        self.chat_template, self.tool_template = self._template(None), self._template(b"tool_use")
        special = any_of(self.special_texts)
        self._special = re.compile(special)
        self._run_part = re.compile(rf"(?:{special}|.){{1,{RUN_CHARACTERS}}}", re.DOTALL)
        self._bytes: dict[int, bytes] = {}
        # SentencePiece vocabularies put a space before a text. SENTINEL_LEAD takes it, and is cut off again with it.
        self._lead_tokens = len(self._tokenize(SENTINEL_LEAD)) if kind == ll.LLAMA_VOCAB_TYPE_SPM else 0

    def _template(self, name: bytes | None) -> str | None:
        template = ll.llama_model_chat_template(self._model, name)
        return template.decode(errors="replace") if template else None

    def _text(self, token: int) -> str:
        return ll.llama_vocab_get_text(self._vocab, token).decode(errors="replace") if token >= 0 else ""

    def _find_embedding_end_token(self) -> int | None:
        """BERT's separator; the end token of such as were made of chat models."""
        vocab = self._vocab
        if ll.llama_vocab_get_add_sep(vocab):
            return int(ll.llama_vocab_sep(vocab))
        return int(ll.llama_vocab_eos(vocab)) if ll.llama_vocab_get_add_eos(vocab) else None

    def _special_text(self, token: int) -> str:
        return self._text(token)

    def _find_special_texts(self) -> Iterator[str]:
        for token in range(self.vocab_size):
            attributes = ll.llama_vocab_get_attr(self._vocab, token)
            if not attributes & (CONTROL | ll.LLAMA_TOKEN_ATTR_USER_DEFINED):
                continue
            text = self._text(token)
            if attributes & CONTROL or MARKER.fullmatch(text):
                yield text

    @cached_property
    def longest_token(self) -> int:
        specials = (len(text.encode()) for text in self.special_texts)
        texts = (len(self.bytes_of(token)) for token in range(self.vocab_size))
        return max(chain(specials, texts), default=1)

    def bytes_of(self, token: int) -> bytes:
        data = self._bytes.get(token)
        if data is None:
            data = self._bytes[token] = self._read_bytes(token)
        return data

    def _read_bytes(self, token: int) -> bytes:
        assert self._model
        assert 0 <= token < self.vocab_size
        size = 128
        while True:
            buffer = ctypes.create_string_buffer(size)
            written = ll.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if written >= 0:
                return buffer.raw[:written]
            size = -written

    def _encode_piece(self, text: str, *, first: bool) -> list[int]:
        ids: list[int] = []
        for span in self._spans(text):
            for part in self._parts(span):
                lead = 0 if first else self._lead_tokens
                ids += self._tokenize(SENTINEL_LEAD + part if lead else part)[lead:]
                first = False
        return ids

    def _spans(self, text: str) -> Iterator[str]:
        """A long text in spans that begin with a special token, where llama.cpp cuts anyway: it does so in a time that
        grows with the square of their number."""
        start = 0
        while special := self._special.search(text, start + SPAN_CHARACTERS):
            yield text[start : special.start()]
            start = special.start()
        yield text[start:]

    def _parts(self, span: str) -> Iterator[str]:
        """The span, cut in words and gaps of thousands of characters, though never in a special token. llama.cpp splits
        some vocabularies' words by std::regex, which recurses for each character: at about 27,000 the process dies."""
        start = 0
        for run in LONG_RUN.finditer(span):
            for part in self._run_part.finditer(span, run.start(), run.end()):
                yield span[start : part.end()]
                start = part.end()
        yield span[start:]

    def _tokenize(self, text: str) -> list[int]:
        assert self._model
        data = text.encode(errors="replace")  # half a surrogate pair is no UTF-8, and llama.cpp would abort over it
        size = len(data) + 8
        while True:
            tokens = (ll.llama_token * size)()
            written = ll.llama_tokenize(self._vocab, data, len(data), tokens, size, False, True)
            if written >= 0:
                return tokens[:written]
            size = -written

    def close(self) -> None:
        if self._model:
            ll.llama_model_free(self._model)
        self._model = self._vocab = None


def _load(path: str | Path, name: str) -> ll.llama_model_p:
    if not Path(path).is_file():
        raise ModelLoadFailed(f"{name} is missing, or is not a file")
    ll.llama_log_set(_LOG, ctypes.c_void_p())
    ll.llama_backend_init()
    params = ll.llama_model_default_params()
    params.vocab_only = True
    model: ll.llama_model_p | None = ll.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise ModelLoadFailed(f"{name} cannot be read: it is not a GGUF file, is damaged, or needs a newer llama.cpp")
    return model
