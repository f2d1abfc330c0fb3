"""A GGUF's header is read as it is, and one that lies is refused at once, whatever it promises."""

import contextlib
import ctypes
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.catalog.facts import BrokenModel
from src.catalog.gguf import _TYPES, facts, read_header
from tests.support.model_files import Q4_0, gguf_bytes, text, typed

LLAMA = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 8192,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
}


def write(folder: Path, content: bytes) -> Path:
    path = folder / "x.gguf"
    path.write_bytes(content)
    return path


def read_facts(folder: Path, content: bytes):
    path = write(folder, content)
    return facts([read_header(path)], path.stat().st_size)


def test_the_builtin_models_facts_are_read_from_its_header(model_path):
    read = facts([read_header(model_path)], model_path.stat().st_size)
    assert (read.architecture, read.parameters, read.quantisation, read.context_length) == ("llama", 134_515_008, "Q4_1", 8192)
    assert read.capabilities == ("chat_template",)
    assert read.kv_bytes_per_token == 30 * 3 * (64 + 64) * 2
    assert read.vocabulary == 49152


def test_sizes_follow_from_layers_and_heads(tmp_path):
    assert read_facts(tmp_path, gguf_bytes(LLAMA)).kv_bytes_per_token == 2 * 2 * (8 + 8) * 2
    wide = {**LLAMA, "llama.attention.key_length": 256, "llama.attention.value_length": 128}
    assert read_facts(tmp_path, gguf_bytes(wide)).kv_bytes_per_token == 2 * 2 * (256 + 128) * 2


def test_layers_may_differ_in_their_heads(tmp_path):
    assert read_facts(tmp_path, gguf_bytes({**LLAMA, "llama.attention.head_count_kv": [0, 8]})).kv_bytes_per_token == 8 * (8 + 8) * 2


def test_recurrent_layers_take_memory_by_the_sequence(tmp_path):
    mamba = {"general.architecture": "mamba", "mamba.block_count": 3, "mamba.ssm.inner_size": 10, "mamba.ssm.state_size": 16}
    assert read_facts(tmp_path, gguf_bytes({**mamba, "mamba.ssm.conv_kernel": 4})).state_bytes == 4 * 3 * 10 * 20


def test_the_quantisation_is_the_files_own_word_or_its_most_frequent_type(tmp_path):
    assert read_facts(tmp_path, gguf_bytes({**LLAMA, "general.file_type": 15})).quantisation == "Q4_K_M"
    assert read_facts(tmp_path, gguf_bytes(LLAMA, {"a": (32, 4)}, Q4_0)).quantisation == "Q4_0"


def test_parameters_of_all_parts_count(tmp_path):
    path = write(tmp_path, gguf_bytes(LLAMA, {"a": (3, 4), "b": (5,)}))
    assert facts([read_header(path)] * 2, 0).parameters == 2 * 17


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ messages }}", ("chat_template",)),
        ("{% if tools %}{{ tools }}{% endif %}", ("chat_template", "tools")),
        ("{{ '<think>' }}", ("chat_template", "thinking")),
    ],
)
def test_capabilities_follow_from_the_template(tmp_path, template, told):
    assert read_facts(tmp_path, gguf_bytes({**LLAMA, "tokenizer.chat_template": template})).capabilities == told


def test_a_second_template_tells_of_tools(tmp_path):
    templates = {"tokenizer.chat_template": "{{ messages }}", "tokenizer.chat_template.tool_use": "{{ messages }}"}
    assert read_facts(tmp_path, gguf_bytes({**LLAMA, **templates})).capabilities == ("chat_template", "tools")


def test_a_part_of_a_model_that_is_not_named_as_one_is_told_its_name(tmp_path):
    with pytest.raises(BrokenModel, match=r"part 2 of 3 by its header, but not by its name: name it NAME-00002-of-00003\.gguf"):
        read_facts(tmp_path, gguf_bytes({**LLAMA, "split.no": 1, "split.count": 3}))
    assert read_facts(tmp_path, gguf_bytes({**LLAMA, "split.no": 0, "split.count": 1})).architecture == "llama"


def test_a_model_with_a_pooling_type_embeds(tmp_path):
    bert = {"general.architecture": "bert", "bert.pooling_type": 1}
    assert read_facts(tmp_path, gguf_bytes(bert)).capabilities == ("embeddings",)


def test_a_vocabulary_without_weights_is_no_model(tmp_path):
    with pytest.raises(BrokenModel, match="vocabulary, but no weights"):
        read_facts(tmp_path, gguf_bytes(LLAMA, {}))


def test_a_tensor_type_that_is_not_known_here_is_left_to_the_engine(tmp_path):
    known = read_facts(tmp_path, gguf_bytes(LLAMA))
    read = read_facts(tmp_path, gguf_bytes(LLAMA, kind=99))
    assert (read.quantisation, read.parameters, read.context_length) == ("type 99", known.parameters, 8192)


def test_types_of_tensors_are_those_of_the_engine():
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama.cpp is not installed here", exc_type=ImportError)
    [path, *_] = Path(llama_cpp.__file__).parent.glob("lib/libggml-base.[sd]*")
    ggml = ctypes.CDLL(str(path))
    ggml.ggml_type_name.restype, ggml.ggml_blck_size.restype, ggml.ggml_type_size.restype = ctypes.c_char_p, ctypes.c_int64, ctypes.c_size_t
    for kind, (name, block, size) in _TYPES.items():
        assert (name.lower(), block, size) == (
            ggml.ggml_type_name(kind).decode().lower(),
            ggml.ggml_blck_size(kind),
            ggml.ggml_type_size(kind),
        )


def test_no_type_of_tensors_is_missing():
    constants = pytest.importorskip("gguf.constants")
    for kind, sizes in constants.GGML_QUANT_SIZES.items():
        name, *known = _TYPES[kind]
        assert name == kind.name
        assert tuple(known) == (sizes if name != "Q8_1" else (32, 36))  # gguf-py counts two scales of 32 bits, which ggml has in 16


def head(tensors: int, values: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values) + rest


HUGE = 2**63
MALFORMED = {
    "more values than bytes": head(0, HUGE),
    "more tensors than bytes": head(HUGE, 0),
    "a key longer than the file": head(0, 1, struct.pack("<Q", HUGE) + b"x" * 100),
    "a string longer than the file": head(0, 1, text("k") + struct.pack("<IQ", 8, HUGE) + b"x" * 100),
    "an array of numbers longer than the file": head(0, 1, text("k") + struct.pack("<IIQ", 9, 4, HUGE) + b"x" * 100),
    "an array of strings longer than the file": head(0, 1, text("k") + struct.pack("<IIQ", 9, 8, HUGE) + b"x" * 100),
    "arrays in arrays in arrays": head(0, 1, text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 50),
    "a type that is none": head(0, 1, text("k") + struct.pack("<I", 77) + b"x" * 100),
    "another version": head(0, 0, version=1),
    "another byte order": head(0, 0, version=3 << 24),
    "an alignment of zero": head(0, 1, text("general.alignment") + typed(0)),
    "an alignment that is text": head(0, 1, text("general.alignment") + typed("32")),
    "a tensor of many dimensions": head(1, 0, text("t") + struct.pack("<I", 2**32 - 1) + b"x" * 100),
    "a tensor type that is none": head(1, 0, text("t") + struct.pack("<IQIQ", 1, 4, 1024, 0)),
    "a tensor of a type to come, larger than the file": head(1, 0, text("t") + struct.pack("<IQQIQ", 2, HUGE, HUGE, 99, 0)),
    "a tensor of a type to come, behind the file's end": head(1, 0, text("t") + struct.pack("<IQIQ", 1, 4, 99, HUGE)),
    "a tensor larger than the file": head(1, 0, text("t") + struct.pack("<IQQIQ", 2, HUGE, HUGE, 0, 0)),
    "a tensor behind the file's end": head(1, 0, text("t") + struct.pack("<IQIQ", 1, 4, 0, HUGE)),
}  # fmt: skip


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_header_that_lies_is_refused_at_once_and_without_memory(tmp_path, content):
    path = write(tmp_path, content + b"\0" * 64)
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(BrokenModel):
            read_header(path)
        assert time.perf_counter() - began < 1
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = gguf_bytes({**LLAMA, "tokenizer.ggml.tokens": ["a", "b"], "list": [1, 2]})
    for length in range(len(whole)):
        with pytest.raises(BrokenModel):
            read_header(write(tmp_path, whole[:length]))
    assert read_header(write(tmp_path, whole)).lengths == {"tokenizer.ggml.tokens": 2}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_anywhere_is_refused_or_harmless(tmp_path_factory, data):
    whole = bytearray(gguf_bytes({**LLAMA, "tokenizer.ggml.tokens": ["a", "b"], "list": [1.5, 2.5]}))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    path = write(tmp_path_factory.getbasetemp(), bytes(whole))
    with contextlib.suppress(BrokenModel):
        assert read_header(path).tensors is not None
