"""Tokenizer files of a Hugging Face folder that nobody checked: the load fails, and says which folder and what of it."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Vocabulary
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE

from src.errors import ChatTemplateTooCostly, ModelLoadFailed
from src.text.dialect import Dialect
from src.text.template import ChatTemplate
from src.text.tokenizer.hf import BYTES, HFTokenizer

CONFIG = {"eos_token": "<|end|>", "chat_template": "{{ messages[0].content }}"}


def folder(root: Path, tokenizer_config: object = CONFIG, **files: object) -> Path:
    vocabulary = Vocabulary(BPE({character: place for place, character in enumerate(BYTES)}, []))
    vocabulary.decoder = ByteLevel()
    vocabulary.add_special_tokens([AddedToken("<|end|>", special=True)])
    path = root / "folder"
    path.mkdir()
    vocabulary.save(str(path / "tokenizer.json"))
    for name, content in {"tokenizer_config": tokenizer_config, **files}.items():
        (path / f"{name}.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_the_folder_that_is_spoiled_below_is_a_good_one(tmp_path):
    tokenizer = HFTokenizer(folder(tmp_path, config={"eos_token_id": 256}))
    assert tokenizer.end_tokens == (256,)
    assert tokenizer.encode("a<|end|>", add_bos=False)[1:] == [256]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config": {"eos_token_id": 10**9}}, "end token 1000000000, which is not in its vocabulary of 257"),
        ({"config": {"eos_token_id": -1}}, "end token -1"),
        ({"generation_config": {"eos_token_id": ["2"]}}, "end token 2"),
        ({"config": {"eos_token_id": {"a": 1}}}, "end token {'a': 1}, which is not a token id"),
        ({"config": []}, "config.json is not a JSON object"),
        ({"config": b"[" * 100_000}, "config.json is not JSON"),
        ({"config": b"\xff\xfe"}, "config.json is not JSON"),
        ({"tokenizer_config": b"{"}, "tokenizer_config.json is not JSON"),
        ({"tokenizer_config": {"bos_token": [1]}}, "has a token that is not text"),
        ({"tokenizer_config": {"bos_token": {"text": 1}}}, "has a token that is not text"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": {}}}}, "malformed tokenizer files"),
        ({"tokenizer_config": {"added_tokens_decoder": {"999": {"content": 7}}}}, "malformed tokenizer files"),
        ({"tokenizer_config": {"added_tokens_decoder": [1]}}, "malformed tokenizer files"),
        ({"tokenizer_config": {"chat_template": 7}}, "chat_template that is not text"),
        ({"tokenizer_config": {"chat_template": [{"name": "default"}]}}, "chat_template that is not text"),
        ({"tokenizer": b"{}"}, "tokenizer.json cannot be read"),
        ({"tokenizer": b"[" * 100_000}, "tokenizer.json cannot be read"),
        (
            {"tokenizer": b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 18446744073709551616}, "merges": []}}'},
            "cannot be read",
        ),
    ],
)
def test_files_that_make_no_sense_are_refused_with_the_folder_and_the_reason(tmp_path, files, told):
    path = folder(tmp_path)
    for name, content in files.items():
        (path / f"{name}.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ModelLoadFailed, match=told) as caught:
        HFTokenizer(path)
    assert caught.value.message.startswith("folder")
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.json", "chat_template.jinja"])
def test_a_folders_template_is_held_to_the_same_bounds_wherever_it_lies(tmp_path, place):
    endless = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    path = folder(tmp_path, {"eos_token": "<|end|>"})
    (path / place).write_text(endless if place.endswith("jinja") else json.dumps({"eos_token": "<|end|>", "chat_template": endless}))
    tokenizer = HFTokenizer(path)
    assert tokenizer.chat_template == endless
    template = ChatTemplate(endless, bos_text="", eos_text="", special_texts=tokenizer.special_texts, seconds=0.2)
    with pytest.raises(ChatTemplateTooCostly):
        Dialect(template, tokenizer)


def test_a_vocabulary_that_the_configuration_names_elsewhere_is_not_opened(tmp_path):
    """transformers would, where there is no tokenizer.json."""
    (tmp_path / "elsewhere.model").write_text("secret")
    path = folder(tmp_path, {"eos_token": "<|end|>", "vocab_file": "../elsewhere.model"})
    (path / "tokenizer.json").unlink()
    (path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(ModelLoadFailed, match=r"folder/tokenizer_config\.json names a file of another folder as its vocab_file"):
        HFTokenizer(path)
