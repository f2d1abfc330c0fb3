"""The vocabulary and chat template of a Hugging Face folder, by the tokenizers package. Knows nothing of engines or weights.

MLX's and vLLM's models come as such folders. What their files hold is described at
https://huggingface.co/docs/transformers/main/fast_tokenizers and https://huggingface.co/docs/tokenizers/components.
"""

import json
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Vocabulary

from src.errors import ModelLoadFailed
from src.hf_folder import TOOL_USE, chat_template, end_tokens, read_json, token_text
from src.text.tokenizer.base import Tokenizer
from src.text.tokenizer.guard import MARKER, SENTINEL_LEAD

BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how SentencePiece names the token of a byte
SPACE = "▁"  # how SentencePiece writes one
TOKEN_FIELDS = {"content", "single_word", "lstrip", "rstrip", "normalized", "special"}
FIM_TEXTS = (  # the tokens of fill-in-the-middle: before the prefix, before the suffix, before what fills the middle
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama
)
MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)  # what files that nobody checked lead to
SHRINK = 4  # how many bytes a normalizer may make one of: three Hangul letters of three bytes are one syllable of three


class HFTokenizer(Tokenizer):
    """tokenizer.json as it is; tokenizer.model, where there is no other file, as transformers converts it."""

    def __init__(self, folder: str | Path) -> None:
        """Raises ModelLoadFailed, naming the folder and the file."""
        folder = Path(folder)
        try:
            self._read(folder)
        except MALFORMED as error:
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise ModelLoadFailed(f"{folder.name} has malformed tokenizer files ({reason})") from error

    def _read(self, folder: Path) -> None:
        config = read_json(folder / "tokenizer_config.json")
        self._vocabulary = _load(folder, config)
        _mark_added_tokens(folder, self._vocabulary, config)
        form = json.loads(self._vocabulary.to_str())
        self._byte_level = _is_byte_level(form.get("decoder"), folder.name)
        self._normalizes = form.get("normalizer") is not None
        self._added = self._vocabulary.get_added_tokens_decoder()
        self.vocab_size = 1 + max(self._vocabulary.get_vocab(with_added_tokens=True).values(), default=-1)
        self.bos_text = token_text(folder, config.get("bos_token"))
        self.eos_text = token_text(folder, config.get("eos_token"))
        self.bos_token = self._vocabulary.token_to_id(self.bos_text) if self._wants_bos(config) else None
        self.embedding_end_token = self._find_embedding_end_token()
        self.special_texts = tuple(
            token.content for token in self._added.values() if token.special or MARKER.fullmatch(token.content) if token.content
        )
        self.fim_tokens = self._find_fim_tokens()
        self.chat_template = chat_template(folder)
        self.tool_template = chat_template(folder, TOOL_USE)
        self.end_tokens = self._find_end_tokens(folder)
        self._lead_tokens = self._count_lead_tokens()

    def _find_end_tokens(self, folder: Path) -> tuple[int, ...]:
        """Raises ModelLoadFailed for a token that the vocabulary does not have."""
        tokens = end_tokens(folder)
        if tokens and tokens[-1] >= self.vocab_size:
            raise ModelLoadFailed(
                f"{folder.name} names the end token {tokens[-1]}, which is not in its vocabulary of {self.vocab_size}: "
                "see eos_token_id in its config.json and generation_config.json"
            )
        return tuple(tokens)

    def _wants_bos(self, config: dict[str, Any]) -> bool:
        """As the configuration says, else if the vocabulary's own post-processor adds one."""
        if not self.bos_text:
            return False
        stated = config.get("add_bos_token")
        if stated is not None:
            return bool(stated)
        first: list[int] = self._vocabulary.encode("a").ids[:1]
        return first == [self._vocabulary.token_to_id(self.bos_text)]

    def _find_embedding_end_token(self) -> int | None:
        """What the vocabulary's own post-processor puts behind a text."""
        text, whole = self._ids("a"), self._vocabulary.encode("a").ids
        return whole[-1] if whole and whole[-1:] != text[-1:] else None

    def _find_fim_tokens(self) -> tuple[int, int, int] | None:
        for texts in FIM_TEXTS:
            before, after, between = (self._vocabulary.token_to_id(text) for text in texts)
            if before is not None and after is not None and between is not None:
                return before, after, between
        return None

    def _count_lead_tokens(self) -> int:
        """SentencePiece vocabularies put a space before a text. There SENTINEL_LEAD takes it, and is cut off again with it."""
        lead, led = self._ids(SENTINEL_LEAD), self._ids(f"{SENTINEL_LEAD}a")
        return 0 if self._ids("a") == led[len(lead) :] else len(lead)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._vocabulary.encode(text, add_special_tokens=False).ids
        return ids

    def _encode_piece(self, text: str, *, first: bool) -> list[int]:
        text = text.encode(errors="replace").decode()  # half a surrogate pair is no UTF-8
        if first or not self._lead_tokens:
            return self._ids(text)
        return self._ids(SENTINEL_LEAD + text)[self._lead_tokens :]

    @cached_property
    def longest_token(self) -> int:
        specials = max((len(text.encode()) for text in self.special_texts), default=1)
        texts = max((len(self.bytes_of(token)) for token in range(self.vocab_size)), default=1)
        return max(specials, texts) * (SHRINK if self._normalizes else 1)

    def bytes_of(self, token: int) -> bytes:
        if added := self._added.get(token):
            return b"" if added.special else added.content.encode()
        text = self._vocabulary.id_to_token(token)
        if text is None:  # models have embeddings to spare: their number is rounded up
            return b""
        if self._byte_level:
            return bytes(BYTES[character] for character in text)
        if byte := BYTE.fullmatch(text):
            return bytes.fromhex(byte[1])
        return str(text).replace(SPACE, " ").encode()

    def _special_text(self, token: int) -> str:
        added = self._added.get(token)
        return str(added.content) if added else ""

    def close(self) -> None:
        del self._vocabulary


def _byte_characters() -> Iterator[tuple[str, int]]:
    """GPT-2's writing of bytes as characters: printable ones stand for themselves, the others from U+0100 on, in order
    (https://github.com/openai/gpt-2/blob/master/src/encoder.py, bytes_to_unicode)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    yield from ((chr(byte), byte) for byte in printable)
    yield from ((chr(0x100 + place), byte) for place, byte in enumerate(others))


BYTES = dict(_byte_characters())


def _load(folder: Path, config: dict[str, Any]) -> Vocabulary:
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            return Vocabulary.from_file(str(path))
        except Exception as error:  # tokenizers raises the base class itself
            raise ModelLoadFailed(f"{folder.name}/tokenizer.json cannot be read: {error}") from error
    if not (folder / "tokenizer.model").is_file():
        raise ModelLoadFailed(f"{folder.name} has no vocabulary: it needs a tokenizer.json or a tokenizer.model beside its weights")
    for key, value in config.items():  # transformers opens what is named there in place of the folder's own files
        if key.endswith("_file") and isinstance(value, str) and os.path.basename(value) != value and os.path.exists(folder / value):
            raise ModelLoadFailed(f"{folder.name}/tokenizer_config.json names a file of another folder as its {key[:40]}: remove that line")
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        converted: Vocabulary = tokenizer.backend_tokenizer
    except Exception as error:  # whatever a converter meets in a file that it was not written for
        raise ModelLoadFailed(
            f"{folder.name} has only a tokenizer.model, and transformers cannot convert it ({type(error).__name__}: {error}). "
            "Use a version of the model that has a tokenizer.json."
        ) from error
    return converted


def _mark_added_tokens(folder: Path, vocabulary: Vocabulary, config: dict[str, Any]) -> None:
    """Tokens that only the configuration says are special: in the vocabulary they would be ordinary words."""
    known = vocabulary.get_added_tokens_decoder()
    for id, stated in sorted(config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0])):
        if int(id) not in known:
            token = AddedToken(**{key: value for key, value in stated.items() if key in TOKEN_FIELDS})
            vocabulary.add_special_tokens([token]) if stated.get("special") else vocabulary.add_tokens([token])
    for name in ("bos_token", "eos_token"):
        text = token_text(folder, config.get(name))
        if text and vocabulary.token_to_id(text) is not None:
            vocabulary.add_special_tokens([text])


def _is_byte_level(decoder: dict[str, Any] | None, name: str) -> bool:
    """Whether tokens are bytes written as characters, as GPT-2's; else they are text as SentencePiece writes it."""
    parts = (decoder or {}).get("decoders", [decoder or {}])
    kinds = {part.get("type") for part in parts}
    if "ByteLevel" in kinds:
        return True
    if kinds & {"Metaspace", "ByteFallback", "Replace"}:
        return False
    raise ModelLoadFailed(
        f"{name}/tokenizer.json has an unknown decoder ({', '.join(map(str, kinds))}); byte-level BPE and SentencePiece are supported."
    )
