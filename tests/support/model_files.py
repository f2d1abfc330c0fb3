"""Small files in the formats that models come in: whole ones, for tests that break them."""

import json
import struct
from pathlib import Path

F32, Q4_0 = 0, 2


class Signed(int):
    """An integer that is stored with its sign."""


def gguf_bytes(metadata: dict[str, object] | None = None, tensors: dict[str, tuple[int, ...]] | None = None, kind: int = F32) -> bytes:
    """A GGUF whose tensors are zeros. Values: str, bool, int (32 bits), float, lists of one of them."""
    values = {"general.architecture": "llama"} if metadata is None else metadata
    shapes = {"token_embd.weight": (4, 8)} if tensors is None else tensors
    header = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(values))
    for key, value in values.items():
        header += text(key) + typed(value)
    offset = 0
    for name, shape in shapes.items():
        header += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        elements = 1
        for length in shape:
            elements *= length
        offset += -(-(elements * 4 if kind == F32 else elements // 32 * 18) // 32) * 32
    return header + b"\0" * (-len(header) % 32) + b"\0" * offset


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def typed(value: object) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, Signed):
        return struct.pack("<Ii", 5, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    assert isinstance(value, list)
    items = [typed(item) for item in value]
    kind = items[0][:4] if items else struct.pack("<I", 4)
    return struct.pack("<I", 9) + kind + struct.pack("<Q", len(value)) + b"".join(item[4:] for item in items)


def safetensors_bytes(tensors: dict[str, tuple[str, tuple[int, ...]]] | None = None) -> bytes:
    """Tensors by name: their type (F32, BF16, U32) and shape; zeros."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (kind, shape) in (tensors or {"model.embed_tokens.weight": ("BF16", (8, 4))}).items():
        size = {"F32": 4, "U32": 4, "BF16": 2}[kind]
        for length in shape:
            size *= length
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + b"\0" * end


def put(root: Path, *names: str, content: bytes | None = None) -> None:
    """Files below `root`, each with what its name promises, or with `content`."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = gguf_bytes() if name.endswith(".gguf") else safetensors_bytes() if name.endswith(".safetensors") else b"{}"
        path.write_bytes(whole if content is None else content)
