"""The built-in GGUF as a Hugging Face folder, for engines that read safetensors. Made once a machine, kept in ~/.cache.

`python -m tests.support.hf_model` prints where it lies. Needs the packages gguf and numpy; knows one architecture (Llama) and one
kind of vocabulary (byte-level BPE), those of the built-in model.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.settings import ROOT

GGUF = ROOT / "models" / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE = Path.home() / ".cache" / "llm-inference-service" / "hf-models"
NAME = "smollm2-135m"
CONTROL = 3  # tokenizer.ggml.token_type

# GGUF's names (gguf-py, TensorNameMap) and Hugging Face's.
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# SmolLM cuts every digit off, then as GPT-2 does (llama.cpp's pre-tokenizer "smollm").
PRE_TOKENIZERS = {
    "smollm": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ]
}


def hf_model(dtype: str = "bfloat16", gguf: Path = GGUF, kv_heads: int = 0) -> Path:
    """The folder, named after the model: its parent can serve as MODELS_DIR. Made where this machine has none yet.

    `dtype` of the weights: bfloat16 or float32. `kv_heads`: more than it has, the others of zeros, which changes nothing of what
    it says: to be shared out among ranks the model's own 3 (with 9 of queries) are an odd number.
    """
    digest = hashlib.sha256(f"{dtype} {kv_heads}".encode() + Path(__file__).read_bytes())
    with gguf.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    home = CACHE / digest.hexdigest()[:16]
    if not home.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=CACHE))
        try:
            (making / NAME).mkdir()
            convert(gguf, dtype, making / NAME, kv_heads)
            making.rename(home)
        except OSError:
            if not home.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return home / NAME


def as_embedder(folder: Path, home: Path) -> Path:
    """The same model in `home`, said to be one for embeddings by the mean of its last hidden states."""
    made = home / NAME
    made.mkdir()
    for file in folder.iterdir():
        if file.suffix == ".safetensors":
            (made / file.name).symlink_to(file)
        else:  # of these no link may lead out of the folder
            shutil.copyfile(file, made / file.name)
    config = json.loads((folder / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaModel"]}))
    write_pooling(made, "mean_tokens")
    return made


def write_pooling(folder: Path, mode: str) -> None:
    """Files as sentence-transformers writes them: how a text's vector comes out of its tokens'."""
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": name == mode for name in ("cls_token", "mean_tokens", "lasttoken")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))


def convert(gguf: Path, dtype: str, folder: Path, kv_heads: int = 0) -> None:
    """Write config, weights and tokenizer of a GGUF file into an empty folder."""
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    meta = {name: field.contents() for name, field in reader.fields.items()}
    assert meta["general.architecture"] == "llama"
    assert meta["tokenizer.ggml.model"] == "gpt2"
    tensors = dict(weights(reader, meta))
    if kv_heads:
        tensors = {name: with_heads(name, array, meta, kv_heads) for name, array in tensors.items()}
    write_safetensors(folder / "model.safetensors", dtype, tensors)
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    ends = {"bos_token_id": meta["tokenizer.ggml.bos_token_id"], "eos_token_id": meta["tokenizer.ggml.eos_token_id"]}
    for name, content in {
        "config.json": {**config(meta, dtype, tied, kv_heads), **ends},
        "generation_config.json": ends,
        "tokenizer.json": tokenizer(meta),
        "tokenizer_config.json": tokenizer_config(meta),
    }.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1))


def config(meta: dict[str, Any], dtype: str, tied: bool, kv_heads: int = 0) -> dict[str, Any]:
    heads, width = meta["llama.attention.head_count"], meta["llama.embedding_length"]
    group = heads // meta["llama.attention.head_count_kv"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": group * kv_heads or heads,
        "num_key_value_heads": kv_heads or meta["llama.attention.head_count_kv"],
        "head_dim": width // heads,
        "max_position_embeddings": meta["llama.context_length"],
        "rms_norm_eps": meta["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": meta["llama.rope.freq_base"],
        "vocab_size": meta["llama.vocab_size"],
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
    }


def weights(reader: Any, meta: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Hugging Face's names and float32 arrays of all tensors."""
    from gguf import dequantize

    heads = {"attn_q": meta["llama.attention.head_count"], "attn_k": meta["llama.attention.head_count_kv"]}
    for tensor in reader.tensors:
        block, name = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", tensor.name).groups()
        array = dequantize(tensor.data, tensor.tensor_type)
        if name in heads:
            # llama.cpp rotates neighbouring pairs of a head's rows, Hugging Face the first half with the second: the
            # conversion to GGUF interleaved them (convert_hf_to_gguf.py, LlamaModel.permute).
            rows, columns = array.shape
            array = array.reshape(heads[name], rows // heads[name] // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        yield f"{f'model.layers.{block}.' if block else ''}{NAMES[name]}.weight", array


def with_heads(name: str, array: Any, meta: dict[str, Any], kv_heads: int) -> Any:
    """A tensor with heads of zeros behind its own, where it has heads."""
    import numpy

    heads, of_kv = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
    size = meta["llama.embedding_length"] // heads
    more = {"q_proj": heads // of_kv, "o_proj": heads // of_kv, "k_proj": 1, "v_proj": 1}
    part = name.split(".")[-2]
    if part not in more:
        return array
    rows = more[part] * (kv_heads - of_kv) * size
    return numpy.pad(array, ((0, 0), (0, rows)) if part == "o_proj" else ((0, rows), (0, 0)))


def write_safetensors(path: Path, dtype: str, tensors: dict[str, Any]) -> None:
    """The format is a header's length, a JSON header, and the data (https://huggingface.co/docs/safetensors)."""
    name, size = {"bfloat16": ("BF16", 2), "float32": ("F32", 4)}[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, array in tensors.items():
        begin, end = end, end + size * array.size
        header[key] = {"dtype": name, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write((bfloat16(array) if dtype == "bfloat16" else array.astype("<f4")).tobytes())


def bfloat16(array: Any) -> Any:
    """The upper halves of float32, rounded to the nearest and halves to even; as integers, for numpy has no such type."""
    bits = array.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def tokenizer(meta: dict[str, Any]) -> dict[str, Any]:
    tokens, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, **added(tokens[id])} for id, kind in enumerate(types) if kind == CONTROL],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[meta["tokenizer.ggml.pre"]]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: id for id, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in meta["tokenizer.ggml.merges"]],
        },
    }


def added(text: str) -> dict[str, Any]:
    return {"content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def tokenizer_config(meta: dict[str, Any]) -> dict[str, Any]:
    tokens, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    return {
        "tokenizer_class": "GPT2TokenizerFast",
        "add_prefix_space": False,
        "add_bos_token": meta["tokenizer.ggml.add_bos_token"],
        "added_tokens_decoder": {str(id): added(tokens[id]) for id, kind in enumerate(types) if kind == CONTROL},
        "bos_token": tokens[meta["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[meta["tokenizer.ggml.eos_token_id"]],
        "unk_token": tokens[meta["tokenizer.ggml.unknown_token_id"]],
        "pad_token": tokens[meta["tokenizer.ggml.padding_token_id"]],
        "model_max_length": meta["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": meta["tokenizer.chat_template"],
    }


if __name__ == "__main__":
    print(os.fspath(hf_model()))
