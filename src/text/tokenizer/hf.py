"""The vocabulary and chat template of a Hugging Face folder, by the tokenizers package. Knows nothing of engines or weights.

MLX's and vLLM's models come as such folders. What their files hold is described at
https://huggingface.co/docs/transformers/main/fast_tokenizers and https://huggingface.co/docs/tokenizers/components.
"""

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Vocabulary

from src.errors import ModelLoadFailed
from src.text.guard import MARKER
from src.text.tokenizer import Tokenizer

BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how SentencePiece names the token of a byte
SPACE = "▁"  # how SentencePiece writes one
LEAD = "\ufdd1"  # a noncharacter: in no vocabulary, so it merges with nothing that follows
TOKEN_FIELDS = {"content", "single_word", "lstrip", "rstrip", "normalized", "special"}
GAPS = (  # how models call the tokens around a gap: before its prefix, its suffix, what fills it
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama
)
LIES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)  # what files that nobody checked lead to
SHRINK = 4  # how many bytes a normalizer may make one of: three Hangul letters of three bytes are one syllable of three


class HFTokenizer(Tokenizer):
    """tokenizer.json as it is; tokenizer.model, where there is no other file, as transformers converts it."""

    def __init__(self, folder: str | Path) -> None:
        """Raises ModelLoadFailed, naming the folder and the file."""
        folder = Path(folder)
        try:
            self._read(folder)
        except LIES as error:
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise ModelLoadFailed(f"{folder.name} has files of a tokenizer that make no sense ({reason})") from error

    def _read(self, folder: Path) -> None:
        config = _read_json(folder / "tokenizer_config.json")
        self._vocabulary = _load(folder)
        _mark_added_tokens(self._vocabulary, config)
        form = json.loads(self._vocabulary.to_str())
        self._byte_level = _is_byte_level(form.get("decoder"), folder.name)
        self._normalizes = form.get("normalizer") is not None
        self._added = self._vocabulary.get_added_tokens_decoder()
        self.vocab_size = 1 + max(self._vocabulary.get_vocab(with_added_tokens=True).values(), default=-1)
        self.bos_text = _token_text(config.get("bos_token"))
        self.eos_text = _token_text(config.get("eos_token"))
        self.bos_token = self._vocabulary.token_to_id(self.bos_text) if self._wants_bos(config) else None
        self.closing_token = self._find_closing_token()
        self.special_texts = tuple(
            token.content for token in self._added.values() if token.special or MARKER.fullmatch(token.content) if token.content
        )
        self.gap = self._find_gap()
        self.chat_template = _chat_template(folder, config)
        self.end_tokens = self._find_end_tokens(folder)
        self._lead_tokens = self._count_lead_tokens()

    def _find_end_tokens(self, folder: Path) -> tuple[int, ...]:
        """All that the folder's files name: chat models often have one in each of two files."""
        ids = {self._vocabulary.token_to_id(self.eos_text)}
        for name in ("config.json", "generation_config.json"):
            stated = _read_json(folder / name).get("eos_token_id")
            ids |= set(stated) if isinstance(stated, list) else {stated}
        if wrong := [id for id in ids - {None} if type(id) is not int or not 0 <= id < self.vocab_size]:
            raise ModelLoadFailed(
                f"{folder.name} names the end token {str(wrong[0])[:40]}, which is not in its vocabulary of {self.vocab_size}: "
                "see eos_token_id in its config.json and generation_config.json"
            )
        return tuple(sorted(id for id in ids if id is not None))

    def _wants_bos(self, config: dict[str, Any]) -> bool:
        """As the configuration says, else if the vocabulary's own post-processor adds one."""
        if not self.bos_text:
            return False
        stated = config.get("add_bos_token")
        if stated is not None:
            return bool(stated)
        first: list[int] = self._vocabulary.encode("a").ids[:1]
        return first == [self._vocabulary.token_to_id(self.bos_text)]

    def _find_closing_token(self) -> int | None:
        """What the vocabulary's own post-processor puts behind a text."""
        text, whole = self._ids("a"), self._vocabulary.encode("a").ids
        return whole[-1] if whole and whole[-1:] != text[-1:] else None

    def _find_gap(self) -> tuple[int, int, int] | None:
        for texts in GAPS:
            before, after, between = (self._vocabulary.token_to_id(text) for text in texts)
            if before is not None and after is not None and between is not None:
                return before, after, between
        return None

    def _count_lead_tokens(self) -> int:
        """SentencePiece vocabularies put a space before a text. There LEAD takes it, and is cut off again with it."""
        lead, led = self._ids(LEAD), self._ids(f"{LEAD}a")
        return 0 if self._ids("a") == led[len(lead) :] else len(lead)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._vocabulary.encode(text, add_special_tokens=False).ids
        return ids

    def _encode_piece(self, text: str, *, first: bool) -> list[int]:
        text = text.encode(errors="replace").decode()  # half a surrogate pair is no UTF-8
        if first or not self._lead_tokens:
            return self._ids(text)
        return self._ids(LEAD + text)[self._lead_tokens :]

    @cached_property
    def longest_token(self) -> int:
        specials = max((len(text.encode()) for text in self.special_texts), default=1)
        pieces = max((len(self.piece(token)) for token in range(self.vocab_size)), default=1)
        return max(specials, pieces) * (SHRINK if self._normalizes else 1)

    def piece(self, token: int) -> bytes:
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


def _load(folder: Path) -> Vocabulary:
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            return Vocabulary.from_file(str(path))
        except Exception as error:  # tokenizers raises the base class itself
            raise ModelLoadFailed(f"{folder.name}/tokenizer.json cannot be read: {error}") from error
    if not (folder / "tokenizer.model").is_file():
        raise ModelLoadFailed(f"{folder.name} has no vocabulary: it needs a tokenizer.json or a tokenizer.model beside its weights")
    try:
        from transformers import AutoTokenizer

        converted: Vocabulary = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    except Exception as error:  # whatever a converter meets in a file that it was not written for
        raise ModelLoadFailed(
            f"{folder.name} has only a tokenizer.model, and transformers cannot convert it ({type(error).__name__}: {error}). "
            "Use a version of the model that has a tokenizer.json."
        ) from error
    return converted


def _mark_added_tokens(vocabulary: Vocabulary, config: dict[str, Any]) -> None:
    """Tokens that only the configuration says are special: in the vocabulary they would be ordinary words."""
    known = vocabulary.get_added_tokens_decoder()
    for id, stated in sorted(config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0])):
        if int(id) not in known:
            token = AddedToken(**{key: value for key, value in stated.items() if key in TOKEN_FIELDS})
            vocabulary.add_special_tokens([token]) if stated.get("special") else vocabulary.add_tokens([token])
    for name in ("bos_token", "eos_token"):
        text = _token_text(config.get(name))
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
        f"{name}/tokenizer.json has a decoder that this service does not know ({', '.join(map(str, kinds))}); "
        "it knows byte-level BPE and SentencePiece."
    )


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    template = config.get("chat_template") or _read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((one["template"] for one in template if one["name"] == "default"), None)
    if not isinstance(template, str | None):
        raise ModelLoadFailed(f"{folder.name} has a chat_template that is no text")
    return template


def _token_text(stated: str | dict[str, Any] | None) -> str:
    """A token of tokenizer_config.json: its text, or an object that holds it."""
    return stated["content"] if isinstance(stated, dict) else stated or ""


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelLoadFailed(f"{path.parent.name}/{path.name} is no JSON: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise ModelLoadFailed(f"{path.parent.name}/{path.name} is no JSON object")
    return content
