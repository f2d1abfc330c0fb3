"""A GGUF file's header: metadata and tensor sizes. Reads no weights, knows no engine, believes no number it cannot check.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every length is held against the bytes there are
before anything of that length is read or made, so that a file that lies costs no more time or memory than one that does not.
"""

import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from src.catalog.facts import MOST_BYTES, BrokenModel, Facts, NotAModel, capabilities, kv_bytes

MAX_HEADER_BYTES = 64 * 2**20  # the largest vocabularies take some ten
MAX_KEPT_ARRAY = 4096  # elements; longer ones (a vocabulary) are only counted
MAX_KEPT_TEXT = 2**20  # bytes; longer ones are only counted
MAX_NAME = 2**16  # bytes of a key or a tensor's name, the format's own limit
MAX_ENTRIES = 2**16  # values, and tensors; the largest models have some thousands
MAX_TEXTS = 2**21  # in arrays; the largest vocabularies and their merges are below a million
MAX_NESTING = 3
MAX_DIMENSIONS = 8
READ_BYTES = 2**20

_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

# ggml's tensor types: name, elements of a block, bytes of a block (ggml-common.h).
_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip

HIGHEST_TYPE = 1023  # of those to come

# general.file_type, where it says more than the most frequent tensor type (llama.h, llama_ftype).
_FILE_TYPES = {
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 21: "Q2_K_S",
    22: "IQ3_XS", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
}  # fmt: skip


class Tensor(NamedTuple):
    name: str
    type: str
    elements: int
    size: int  # bytes; of a type that is not known here, the least: a bit for each element


class Header(NamedTuple):
    metadata: dict[str, Any]  # of arrays that are long or hold strings, only their length is kept, in `lengths`
    lengths: dict[str, int]
    tensors: list[Tensor]


def read_header(path: Path) -> Header:
    """Raises BrokenModel with the reason, also where the file is shorter than its tensors; OSError where it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        return _parse(_Reader(file, size), size)


def facts(headers: list[Header], weight_bytes: int) -> Facts:
    """Of a model's parts, in order: the first has the metadata. Raises BrokenModel, NotAModel."""
    metadata, lengths = headers[0].metadata, headers[0].lengths
    tensors = [tensor for header in headers for tensor in header.tensors]
    parts = _integer(metadata.get("split.count"))
    if parts > 1 and parts != len(headers):
        place = _integer(metadata.get("split.no")) + 1
        raise BrokenModel(f"it is part {place} of {parts} by its header, but not by its name: name it NAME-{place:05}-of-{parts:05}.gguf")
    kind = _text(metadata, "general.type") or "model"
    architecture = _text(metadata, "general.architecture", most=64)
    if kind != "model" or architecture == "clip":
        raise NotAModel(kind)
    if architecture is None:
        raise BrokenModel("its header has no general.architecture")
    if not tensors:
        raise BrokenModel("it has a vocabulary, but no weights")

    def number(key: str, default: int = 0) -> int:
        value = metadata.get(f"{architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else default

    heads, width, layers = number("attention.head_count"), number("embedding_length"), number("block_count")
    kv_heads: Any = metadata.get(f"{architecture}.attention.head_count_kv", heads)
    if not (isinstance(kv_heads, list) and all(isinstance(count, int) and 0 <= count < 2**16 for count in kv_heads)):
        kv_heads = number("attention.head_count_kv", heads)
    per_head = width // heads if heads else 0
    inner = number("ssm.inner_size")
    return Facts(
        architecture=architecture,
        parameters=sum(tensor.elements for tensor in tensors),
        quantisation=_FILE_TYPES.get(_integer(metadata.get("general.file_type"))) or _most_frequent_type(tensors),
        context_length=number("context_length") or None,
        capabilities=capabilities(
            _text(metadata, "tokenizer.chat_template"), embeddings=f"{architecture}.pooling_type" in metadata,
            tool_template=_text(metadata, "tokenizer.chat_template.tool_use"),
        ),
        weight_bytes=weight_bytes,
        kv_bytes_per_token=kv_bytes(
            layers, kv_heads, number("attention.key_length", per_head), number("attention.value_length", per_head)
        ),
        state_bytes=min(4 * layers * inner * (number("ssm.state_size") + number("ssm.conv_kernel")), MOST_BYTES),
        vocabulary=lengths.get("tokenizer.ggml.tokens", number("vocab_size")),
        embedding_length=width,
        feed_forward_length=number("feed_forward_length"),
    )  # fmt: skip


def _most_frequent_type(tensors: list[Tensor]) -> str:
    by_type: Counter[str] = Counter()
    for tensor in tensors:
        by_type[tensor.type] += tensor.elements
    return by_type.most_common(1)[0][0]


def _integer(value: Any) -> int:
    return value if isinstance(value, int) else -1


def _text(metadata: dict[str, Any], key: str, most: int = MAX_KEPT_TEXT) -> str | None:
    value = metadata.get(key)
    return value[:most] if isinstance(value, str) else None


class _Reader:
    """Little-endian values one after another. Reads ahead only as much as the values need."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = min(size, MAX_HEADER_BYTES)  # bytes of the file that are not in the buffer yet
        self._buffer = b""
        self._at = 0
        self._texts_left = MAX_TEXTS
        self.position = 0  # in the file

    def take(self, count: int) -> bytes:
        self._fill(count)
        data = self._buffer[self._at : self._at + count]
        self.skip(count)
        return data

    def skip(self, count: int) -> None:
        self._fill(count)
        self._at += count
        self.position += count

    def scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self) -> "str | _Length":
        length = self.scalar("Q")
        if length <= MAX_KEPT_TEXT:
            return self.take(length).decode(errors="replace")
        self.skip(length)
        return _Length(length)

    def name(self) -> str:
        length = self.scalar("Q")
        if length > MAX_NAME:
            raise BrokenModel(f"its header has a name of {length} bytes")
        return self.take(length).decode(errors="replace")

    def skip_texts(self, count: int) -> None:
        self.count_texts(count)
        for _ in range(count):
            self._fill(8)
            self.skip(8 + _LENGTH.unpack_from(self._buffer, self._at)[0])

    def count_texts(self, count: int) -> None:
        """Each takes about half a microsecond."""
        self._texts_left -= count
        if self._texts_left < 0:
            raise BrokenModel(f"its header has more than {MAX_TEXTS:,} texts in arrays")

    def room(self) -> int:
        """Bytes there still are."""
        return self._left + len(self._buffer) - self._at

    def _fill(self, count: int) -> None:
        if self._at + count <= len(self._buffer):
            return
        if count > self.room():
            raise BrokenModel("its header is truncated: the file is cut short or damaged")
        needed = count - (len(self._buffer) - self._at)
        data = self._file.read(min(self._left, max(needed, READ_BYTES)))
        if len(data) < needed:
            raise BrokenModel("its header is truncated: the file is being written or was cut short")
        self._buffer, self._at = self._buffer[self._at :] + data, 0
        self._left -= len(data)


def _parse(reader: _Reader, size: int) -> Header:
    if size < 24 or reader.take(4) != b"GGUF":
        raise BrokenModel("it is not a GGUF file (wrong magic bytes)")
    version = reader.scalar("I")
    if version not in (2, 3):
        raise BrokenModel(f"its GGUF version is {version & 0xFFFFFFFF}; only 2 and 3 are supported, in little-endian byte order")
    tensor_count, value_count = reader.scalar("Q"), reader.scalar("Q")
    if value_count * 13 + tensor_count * 24 > reader.room():  # the least that each takes
        raise BrokenModel(f"its header declares {value_count} values and {tensor_count} tensors, more than the file can hold")
    if max(tensor_count, value_count) > MAX_ENTRIES:
        raise BrokenModel(f"its header has {value_count:,} values and {tensor_count:,} tensors; the most is {MAX_ENTRIES:,} of each")
    metadata: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    for _ in range(value_count):
        key = reader.name()
        if key in metadata or key in lengths:
            raise BrokenModel(f"its header has {key[:64]!r} twice")
        value = _value(reader, reader.scalar("I"), 0)
        if isinstance(value, _Length):
            lengths[key] = value.elements
        else:
            metadata[key] = value
    alignment = metadata.get("general.alignment", 32)
    if not (isinstance(alignment, int) and 0 < alignment <= 2**20):
        raise BrokenModel("its general.alignment is invalid")
    tensors, ends = [], [0]
    for _ in range(tensor_count):
        tensor, offset = _tensor(reader)
        tensors.append(tensor)
        ends.append(offset + tensor.size)
    needed = -(-reader.position // alignment) * alignment + max(ends)
    if tensors and needed > size:
        raise BrokenModel(f"it is cut short: {size:,} of {needed:,} bytes present")
    return Header(metadata, lengths, tensors)


class _Length(NamedTuple):
    elements: int


def _value(reader: _Reader, kind: int, depth: int) -> Any:
    if kind in _SCALARS:
        return reader.scalar(_SCALARS[kind])
    if kind == _STRING:
        return reader.text()
    if kind != _ARRAY or depth == MAX_NESTING:
        raise BrokenModel(f"its header has a value of the unknown type {kind}" if kind != _ARRAY else "its header nests arrays too deep")
    kind, count = reader.scalar("I"), reader.scalar("Q")
    least = struct.calcsize("<" + _SCALARS[kind]) if kind in _SCALARS else 8
    if count * least > reader.room():
        raise BrokenModel(f"its header declares an array of {count} values, more than the file can hold")
    if kind in _SCALARS:
        if count > MAX_KEPT_ARRAY:
            reader.skip(count * least)
            return _Length(count)
        return list(struct.unpack(f"<{count}{_SCALARS[kind]}", reader.take(count * least)))
    if kind == _STRING:
        reader.skip_texts(count)
    else:
        reader.count_texts(4 * count)
        for _ in range(count):
            _value(reader, kind, depth + 1)
    return _Length(count)


def _tensor(reader: _Reader) -> tuple[Tensor, int]:
    name = reader.name()
    rank = reader.scalar("I")
    if rank > MAX_DIMENSIONS:
        raise BrokenModel(f"its tensor {name[:64]!r} has {rank} dimensions")
    elements = math.prod(reader.scalar("Q") for _ in range(rank))
    kind, offset = reader.scalar("I"), reader.scalar("Q")
    if kind > HIGHEST_TYPE:
        raise BrokenModel(f"its tensor {name[:64]!r} has the unknown type {kind}")
    if kind not in _TYPES:  # the engine may know it
        return Tensor(name, f"type {kind}", elements, elements // 8), offset
    type_name, block, block_bytes = _TYPES[kind]
    return Tensor(name, type_name, elements, -(-elements // block) * block_bytes), offset
