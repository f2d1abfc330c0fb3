"""The built-in model with two of its thirty layers, as a Hugging Face folder: for tests that do not care what is said.

It has the whole vocabulary and the chat template, says nonsense, and takes a fifth of the time on a CPU.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from tests.support import hf_model
from tests.support.hf_model import CACHE, GGUF, NAME

LAYERS = 2


def small_model(dtype: str = "bfloat16") -> Path:
    """The folder, named after the model: its parent can serve as MODELS_DIR. Made where this machine has none yet."""
    sources = Path(hf_model.__file__).read_bytes() + Path(__file__).read_bytes()
    home = CACHE / f"small-{hashlib.sha256(dtype.encode() + sources).hexdigest()[:16]}"
    if not home.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=CACHE))
        try:
            (making / NAME).mkdir()
            _convert(GGUF, dtype, making / NAME)
            making.rename(home)
        except OSError:
            if not home.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return home / NAME


def _convert(gguf: Path, dtype: str, folder: Path) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    meta = {name: field.contents() for name, field in reader.fields.items()} | {"llama.block_count": LAYERS}
    kept = {name: array for name, array in hf_model.weights(reader, meta) if _layer(name) < LAYERS}
    hf_model.write_safetensors(folder / "model.safetensors", dtype, kept)
    ends = {"bos_token_id": meta["tokenizer.ggml.bos_token_id"], "eos_token_id": meta["tokenizer.ggml.eos_token_id"]}
    for name, content in {
        "config.json": {**hf_model.config(meta, dtype, "lm_head.weight" not in kept), **ends},
        "generation_config.json": ends,
        "tokenizer.json": hf_model.tokenizer(meta),
        "tokenizer_config.json": hf_model.tokenizer_config(meta),
    }.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1))


def _layer(name: str) -> int:
    """Of a tensor by Hugging Face's name; 0 for what belongs to none."""
    found = re.match(r"model\.layers\.(\d+)\.", name)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    print(os.fspath(small_model()))
