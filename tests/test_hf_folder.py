"""The small files of a Hugging Face folder: what the catalog shows, the text modules serve and the engines end answers by."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Vocabulary
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE

from src.catalog import Catalog
from src.errors import ModelLoadFailed
from src.hf_folder import MAX_BYTES, MAX_ELEMENTS, chat_template, end_tokens, read_json
from src.text.tokenizer.hf import BYTES, HFTokenizer
from tests.support.model_files import safetensors_bytes

LAST = len(BYTES)  # the id of <|end|>


def write(folder: Path, **files: object) -> None:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model without weights of use, whose tokenizer says where an answer ends and has no template."""
    vocabulary = Vocabulary(BPE({character: place for place, character in enumerate(BYTES)}, []))
    vocabulary.decoder = ByteLevel()
    vocabulary.add_special_tokens([AddedToken("<|end|>", special=True)])
    path = tmp_path / "models" / "chat"
    path.mkdir(parents=True)
    vocabulary.save(str(path / "tokenizer.json"))
    (path / "model.safetensors").write_bytes(safetensors_bytes())
    write(path, config={"architectures": ["LlamaForCausalLM"]}, tokenizer_config={"eos_token": "<|end|>"})
    return path


# End tokens


def test_every_token_that_the_folders_files_call_an_end_ends_an_answer(tmp_path):
    write(tmp_path, config={"eos_token_id": 5, "text_config": {"eos_token_id": 4}}, generation_config={"eos_token_id": [7, 6]})
    write(tmp_path, tokenizer_config={"eos_token": {"content": "<end>"}})
    write(tmp_path, tokenizer={"added_tokens": [{"id": 9, "content": "<end>"}, {"id": 8, "content": "<x>"}]})
    assert end_tokens(tmp_path) == [4, 5, 6, 7, 9]


def test_a_folder_that_names_none_has_none(tmp_path):
    assert end_tokens(tmp_path) == []


@pytest.mark.parametrize(
    ("files", "id"),
    [
        ({"tokenizer": {"model": {"type": "BPE", "vocab": {"a": 0, "</s>": 2}}}}, 2),
        ({"tokenizer": {"model": {"type": "Unigram", "vocab": [["<unk>", 0], ["</s>", -1.5]]}}}, 1),
        ({"tokenizer": {"added_tokens": None, "model": {"vocab": {"</s>": 3}}}}, 3),
        ({"tokenizer": {"model": {"vocab": {}}}}, 7),
        ({}, 7),
    ],
    ids=["BPE", "Unigram", "no added tokens", "only in the configuration", "no tokenizer.json"],
)
def test_the_end_tokens_text_is_found_wherever_the_vocabulary_has_it(tmp_path, files, id):
    write(tmp_path, tokenizer_config={"eos_token": "</s>", "added_tokens_decoder": {"7": {"content": "</s>"}}}, **files)
    assert end_tokens(tmp_path) == [id]


@pytest.mark.parametrize(
    "files",
    [
        {"config": {"text_config": {"eos_token_id": 17}}},
        {"config": {"eos_token_id": 18, "text_config": {"eos_token_id": [17, 18]}}},
        {"generation_config": {"eos_token_id": [17, 19]}},
        {"config": {"eos_token_id": None, "text_config": None}},
    ],
)
def test_a_grammar_ends_where_the_engine_does(folder, files):
    write(folder, **files)
    tokenizer = HFTokenizer(folder)
    assert list(tokenizer.end_tokens) == end_tokens(folder)
    assert LAST in tokenizer.end_tokens


# Chat templates


PLACES = ["additional_chat_templates/default.jinja", "chat_template.jinja", "tokenizer_config.json", "chat_template.json"]


def put_template(folder: Path, place: str, source: str) -> None:
    path = folder / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(source if place.endswith("jinja") else json.dumps({"eos_token": "<|end|>", "chat_template": source}))


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_of_several_templates_the_first_in_transformers_order_is_shown_and_served(folder, first):
    for place in PLACES[first:]:
        put_template(folder, place, "{{ tools }}" if place == PLACES[first] else "<think>")
    assert HFTokenizer(folder).chat_template == chat_template(folder) == "{{ tools }}"
    assert Catalog(folder.parent).scan()["chat"].facts.capabilities == ("chat_template", "tools")


def test_a_changed_template_is_seen_by_the_next_scan_wherever_it_lies(folder):
    catalog = Catalog(folder.parent)
    for place in reversed(PLACES):
        for source in ("<think>", "{{ tools }}"):
            put_template(folder, place, source)
            assert ("tools" in catalog.scan()["chat"].facts.capabilities) == (source == "{{ tools }}"), place


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.json"])
def test_of_named_templates_the_default_one_counts(tmp_path, place):
    named = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    (tmp_path / place).write_text(json.dumps({"chat_template": named}))
    assert chat_template(tmp_path) == "b"
    (tmp_path / place).write_text(json.dumps({"chat_template": named[:1]}))
    assert chat_template(tmp_path) is None


@pytest.mark.parametrize("template", [7, {}, [{"name": "default"}]])
def test_a_template_that_is_not_text_is_neither_offered_nor_served(folder, template):
    write(folder, tokenizer_config={"eos_token": "<|end|>", "chat_template": template})
    reason = "chat/tokenizer_config.json has a chat_template that is not text"
    assert Catalog(folder.parent).scan()["chat"].problem == reason
    with pytest.raises(ModelLoadFailed) as caught:
        HFTokenizer(folder)
    assert caught.value.message == reason


# Files that nobody checked


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"a": [' + b"0," * MAX_ELEMENTS + b"0]}", "has more than 1,048,576 elements"),
        (b'{"a": "' + b"x" * MAX_BYTES + b'"}', "is larger than the 16 MiB"),
    ],
    ids=["half", "deep", "no text", "digits", "list", "elements", "bytes"],
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_a_hostile_file_is_refused_with_one_reason_by_all(folder, name, content, reason):
    (folder / name).write_bytes(content)
    reasons = set()
    for read in (end_tokens, HFTokenizer, lambda folder: read_json(folder / name)):
        with pytest.raises(ModelLoadFailed) as caught:
            read(folder)
        reasons.add(caught.value.message)
    if name != "generation_config.json":  # of no use to the catalog
        reasons.add(Catalog(folder.parent).scan()["chat"].problem)
    assert len(reasons) == 1
    assert reasons.pop().startswith(f"chat/{name} {reason}")


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"[" * 100_000,
        b'{"added_tokens": 7}',
        b'{"added_tokens": [{"id": "x", "content": "<|end|>"}]}',
        b'{"added_tokens": [{"id": -1, "content": "<|end|>"}]}',
        b'{"model": {"vocab": 7}}',
        b'{"model": {"vocab": {"<|end|>": 18446744073709551616}}}',
        b'{"added_tokens": [' + b"0," * MAX_ELEMENTS + b"0]}",
        b"\xff",
    ],
)
def test_a_hostile_vocabulary_is_refused(folder, content):
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelLoadFailed, match="chat") as caught:
        end_tokens(folder)
    assert len(caught.value.message) < 250


@pytest.mark.parametrize("id", [-1, 2**31, True, 1.5, "2", ["2"], {"a": 1}, [["\ud800"]]])
def test_an_end_token_that_is_no_token_is_refused(folder, id):
    write(folder, config={"eos_token_id": id})
    for read in (end_tokens, HFTokenizer):
        with pytest.raises(ModelLoadFailed, match=r"^chat names the end token") as caught:
            read(folder)
        caught.value.message.encode()


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    write(tmp_path, config={})

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelLoadFailed, match=r"config\.json cannot be read: Permission denied"):
        read_json(tmp_path / "config.json")
