"""What a folder of safetensors says of itself: config.json, the tokenizer's files and the tensors' headers. Reads no weights.

Format: https://huggingface.co/docs/safetensors. MLX folders are such folders, with a "quantization" in their config.json.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from src.catalog.facts import BrokenModel, Facts, capabilities, kv_bytes
from src.hf_folder import TOOL_USE, chat_template, read_json

MAX_HEADER_BYTES = 32 * 2**20  # the format allows three times as much; the largest files have some two million bytes
MAX_DIMENSIONS = 8
MAX_LENGTHS = 64  # that embeddings may be cut to
INDEX = "model.safetensors.index.json"

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8}
_BITS |= {"U16": 16, "U32": 32, "U64": 64, "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "C64": 64}


class _Header(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def facts(folder: Path, weights: list[Path]) -> tuple[str, Facts]:
    """(format, facts): format is mlx where only MLX can read the weights, else safetensors.

    Raises BrokenModel, ModelLoadFailed, OSError.
    """
    config = read_json(folder / "config.json")
    text = config.get("text_config")
    text = {**config, **text} if isinstance(text, dict) else config  # a model of text and pictures has the former in a part
    _check_complete(folder, weights)
    elements: Counter[str] = Counter()
    for path in weights:
        elements += _elements(path)
    mlx = config.get("quantization")
    mlx_bits = mlx.get("bits") if isinstance(mlx, dict) else None
    heads, width = _number(text, "num_attention_heads"), _number(text, "hidden_size")
    per_head = _number(text, "head_dim", width // heads if heads else 0)
    layers = _number(text, "num_hidden_layers")
    names = config.get("architectures")
    return "mlx" if mlx_bits else "safetensors", Facts(
        architecture=_word(config.get("model_type")),
        parameters=_parameters(elements, mlx_bits),
        quantisation=_quantisation(config, elements, mlx_bits),
        context_length=_number(text, "max_position_embeddings") or None,
        capabilities=capabilities(
            chat_template(folder),
            embeddings=(folder / "1_Pooling").is_dir() or not any("For" in str(name) for name in names if name)
            if isinstance(names, list)
            else False,
            tool_template=chat_template(folder, TOOL_USE),
        ),
        matryoshka=_matryoshka(config),
        weight_bytes=sum(path.stat().st_size for path in weights),
        kv_bytes_per_token=kv_bytes(layers, _number(text, "num_key_value_heads", heads), per_head, per_head),
        vocabulary=_number(text, "vocab_size"),
        embedding_length=width,
        feed_forward_length=_number(text, "intermediate_size"),
    )


def _check_complete(folder: Path, weights: list[Path]) -> None:
    """Raises BrokenModel where the index names a file that is not there."""
    if not (folder / INDEX).is_file():
        return
    places = read_json(folder / INDEX).get("weight_map")
    wanted = {str(name) for name in places.values()} if isinstance(places, dict) else set()
    if missing := sorted(wanted - {path.name for path in weights}):
        raise BrokenModel(f"it is incomplete: {_word(missing[0])} is missing ({len(wanted) - len(missing)} of {len(wanted)} files present)")


def _elements(path: Path) -> Counter[str]:
    """How many numbers of each type a file holds. Raises BrokenModel where the file is shorter than its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise BrokenModel(f"{path.name} is not a safetensors file, or is cut short")
        try:
            header = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
            header.pop("__metadata__", None)
            tensors = [msgspec.json.decode(raw, type=_Header) for raw in header.values()]
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise BrokenModel(f"{path.name} has an invalid header: {str(error)[:100]}") from error
    needed = 8 + length + max((tensor.data_offsets[1] for tensor in tensors), default=0)
    if size < needed:
        raise BrokenModel(f"{path.name} is cut short: {size:,} of {needed:,} bytes present")
    found: Counter[str] = Counter()
    for tensor in tensors:
        found[tensor.dtype] += _count(tensor, path.name)
    return found


def _count(tensor: _Header, name: str) -> int:
    """The numbers a tensor holds. Raises BrokenModel where its shape does not fit the bytes it has."""
    begin, end = tensor.data_offsets
    if len(tensor.shape) > MAX_DIMENSIONS or min(tensor.shape, default=0) < 0 or not 0 <= begin <= end:
        raise BrokenModel(f"{name} has an invalid header: a tensor of shape {str(tensor.shape)[:60]} at {begin} to {end}")
    count = math.prod(tensor.shape)
    bits = _BITS.get(tensor.dtype)
    if bits and -(-count * bits // 8) != end - begin:
        raise BrokenModel(f"{name} has an invalid header: {count:,} numbers of {tensor.dtype} in {end - begin:,} bytes")
    return min(count, 8 * (end - begin))  # of a type that is not known here


def _parameters(elements: Counter[str], mlx_bits: Any) -> int | None:
    """Of an MLX model each 32-bit word holds several weights, and what is stored beside them are scales."""
    if isinstance(mlx_bits, int) and 0 < mlx_bits <= 32:
        return elements["U32"] * 32 // mlx_bits or None
    return sum(count for kind, count in elements.items() if kind[:1] in ("F", "B")) or None


def _quantisation(config: dict[str, Any], elements: Counter[str], mlx_bits: Any) -> str | None:
    if mlx_bits:
        mode = _word(config["quantization"].get("mode"))
        return f"{str(mlx_bits)[:8]}-bit" if mode in (None, "affine") else mode  # mxfp4, nvfp4, mxfp8
    other = config.get("quantization_config")
    if isinstance(other, dict) and _word(other.get("quant_method")):
        return _word(other["quant_method"])
    return _word(elements.most_common(1)[0][0]) if elements else None


def _matryoshka(config: dict[str, Any]) -> tuple[int, ...] | None:
    """As embedding models for vLLM state it (https://docs.vllm.ai/en/latest/models/pooling_models.html)."""
    lengths = config.get("matryoshka_dimensions")
    if (
        isinstance(lengths, list)
        and 0 < len(lengths) <= MAX_LENGTHS
        and all(type(length) is int and 0 < length < 2**31 for length in lengths)
    ):
        return tuple(sorted(lengths))
    return () if config.get("is_matryoshka") is True else None


def _number(config: dict[str, Any], key: str, default: int = 0) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else default


def _word(value: Any) -> str | None:
    """A text that can be shown and sent: JSON may hold half a surrogate pair."""
    return "".join(character if character.isprintable() else "?" for character in value[:100]) if isinstance(value, str) else None
