"""Vocabularies of the SentencePiece kind, made here: a space before the text, a BOS token, bytes for unknown characters."""

import struct

import pytest

from src.errors import ModelLoadFailed
from src.text.tokenizer.gguf import GGUFTokenizer
from src.text.tokenizer.guard import Guard

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # tokenizer.ggml.token_type
TOKENS = [
    ("<unk>", UNKNOWN),
    ("<s>", CONTROL),
    ("</s>", CONTROL),
    *((f"<0x{byte:02X}>", BYTE) for byte in range(256)),
    ("<|user|>", USER_DEFINED),
    ("<think>", USER_DEFINED),
    ("▁▁▁", USER_DEFINED),
    *((text, NORMAL) for text in ("▁", "a", "b", "▁a", "▁b", "<", "s", ">", "/", "▁<")),
]
IDS = {text: token for token, (text, _) in enumerate(TOKENS)}


def gguf_value(value) -> bytes:
    """Type and value, as https://github.com/ggml-org/ggml/blob/master/docs/gguf.md lays them out."""
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + gguf_string(value)
        case [int(), *_]:
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
        case [float(), *_]:
            return struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_string, value))
    raise TypeError(value)


def gguf_string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def write_gguf(path, **changes) -> None:
    """A llama without a single tensor."""
    values = {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "llama.embedding_length": 8,
        "llama.block_count": 1,
        "llama.feed_forward_length": 8,
        "llama.attention.head_count": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text for text, _ in TOKENS],
        "tokenizer.ggml.scores": [float(-token) for token in range(len(TOKENS))],
        "tokenizer.ggml.token_type": [kind for _, kind in TOKENS],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
    } | changes
    pairs = b"".join(gguf_string(key) + gguf_value(value) for key, value in values.items())
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(values)) + pairs)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_gguf(path)
    tokenizer = GGUFTokenizer(path)
    yield tokenizer
    tokenizer.close()


def ids(*texts: str) -> list[int]:
    return [IDS[text] for text in texts]


def test_a_text_gets_its_bos_and_its_space(tokenizer):
    assert tokenizer.encode("ab", add_bos=True) == ids("<s>", "▁a", "b")
    assert tokenizer.encode("ab", add_bos=False) == ids("▁a", "b")
    assert tokenizer.encode("", add_bos=True) == ids("<s>")


def test_a_text_that_begins_with_its_own_bos_gets_no_second_one(tokenizer):
    assert tokenizer.encode("<s>a</s>", add_bos=True) == ids("<s>", "▁a", "</s>")


def test_where_a_guarded_text_was_cut_it_gets_no_space(tokenizer):
    guard = Guard(tokenizer.special_texts)
    tokens = tokenizer.encode(f"<s>{guard('a</s>b')}", add_bos=True)
    assert tokens == ids("<s>", "▁a", "<", "/", "s", ">", "b")
    assert b"".join(map(tokenizer.bytes_of, tokens)) == b" a</s>b"


def test_a_long_word_gets_no_space_where_it_is_cut(tokenizer):
    assert tokenizer.encode("a" * 20_000, add_bos=False) == ids("▁a") + ids("a") * 19_999


def test_an_unknown_character_becomes_its_bytes(tokenizer):
    tokens = tokenizer.encode("中", add_bos=False)
    assert tokens == ids("▁", "<0xE4>", "<0xB8>", "<0xAD>")
    assert b"".join(map(tokenizer.bytes_of, tokens)) == " 中".encode()


def test_users_may_not_write_markers_but_may_write_other_added_tokens(tokenizer):
    assert set(tokenizer.special_texts) == {"<unk>", "<s>", "</s>", "<|user|>"}


def test_a_model_without_a_chat_template_has_none(tokenizer):
    assert tokenizer.chat_template is None


def test_a_file_without_a_vocabulary_is_refused_not_fatal(tmp_path):
    path = tmp_path / "silent.gguf"
    write_gguf(path, **{"tokenizer.ggml.model": "none", "llama.vocab_size": 8})
    with pytest.raises(ModelLoadFailed, match=r"^silent\.gguf has no vocabulary"):
        GGUFTokenizer(path)


def test_the_tokens_around_a_gap_are_those_that_the_file_names(tokenizer, tmp_path):
    assert tokenizer.fim_tokens is None
    names = {"fim_pre": IDS["<|user|>"], "fim_suf": IDS["<think>"], "fim_mid": IDS["▁▁▁"]}
    write_gguf(tmp_path / "gap.gguf", **{f"tokenizer.ggml.{name}_token_id": token for name, token in names.items()})
    found = GGUFTokenizer(tmp_path / "gap.gguf")
    assert found.fim_tokens == tuple(names.values())
    found.close()


@pytest.mark.parametrize("added", [True, False])
def test_what_ends_a_text_to_embed_is_as_the_file_says(tmp_path, added):
    write_gguf(tmp_path / "one.gguf", **{"tokenizer.ggml.add_eos_token": added})
    found = GGUFTokenizer(tmp_path / "one.gguf")
    assert found.embedding_end_token == (IDS["</s>"] if added else None)
    found.close()
