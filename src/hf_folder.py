"""The one reader of a Hugging Face folder's small files: JSON, chat template, end tokens. For catalog, text and engines.

Nobody checked these files: sizes are bounded before anything is parsed, and all that is wrong raises ModelLoadFailed. What a template
or a vocabulary says can be read by requests, so none of them may be a link to just any file of this machine.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from src.errors import ModelLoadFailed

MAX_BYTES = 16 * 2**20  # of a JSON file or a chat template
MAX_ELEMENTS = 2**20  # of a JSON file: each takes some hundred bytes of memory
MAX_VOCABULARY_BYTES = 128 * 2**20  # of tokenizer.json; the largest take some forty million
MAX_VOCABULARY_ELEMENTS = 2**21
TEMPLATES = "additional_chat_templates"  # a folder in the model's
FOLDERS_DEEP = 3  # in a model's own that loaders read files of: additional_chat_templates, 1_Pooling
WEIGHTS = (".gguf", ".safetensors")
# A file of huggingface-hub's cache, wherever that lies. It is called after its own content: who can name one knows what is in it.
_BLOB = re.compile(r"/models--[^/]+/blobs/(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
DEFAULT, TOOL_USE = "default", "tool_use"  # names of templates where there are several: for all, and for requests with tools


def check_folder(folder: Path, models_dir: Path) -> None:
    """Raises ModelLoadFailed where a file of a model's folder is a link to elsewhere than may be.

    It may lead into the folder, into the blobs of the cache that the folder is a snapshot of, or into the models folder. Weights may lie
    anywhere: they are only loaded as tensors.
    """
    allowed = _allowed(folder, models_dir)
    for path in _links(folder, FOLDERS_DEEP):
        _check(path, allowed)


def check_file(path: Path, folder: Path, models_dir: Path) -> None:
    """The same for one file of `folder`. What lies directly in the models folder is the operator's own, and may lead anywhere."""
    if folder != models_dir:
        _check(path, _allowed(folder, models_dir))


def _allowed(folder: Path, models_dir: Path) -> list[str]:
    home = Path(os.path.realpath(folder))
    return [str(home), os.path.realpath(models_dir), *([str(home.parent.parent / "blobs")] if home.parent.name == "snapshots" else [])]


def _check(path: Path, allowed: list[str]) -> None:
    """Raises ModelLoadFailed."""
    real = os.path.realpath(path)
    if not os.path.exists(real) or _BLOB.search(real) or any(real == place or real.startswith(f"{place}/") for place in allowed):
        return
    raise ModelLoadFailed(f"{_shown(path)} is a link that leads out of the model's folder: put the file itself there")


def _links(folder: Path, depth: int) -> Iterator[Path]:
    """All but weights, also in inner folders; those that may not be read are left out, as no loader could read them either."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        if entry.is_symlink():
            if not (entry.name.endswith(WEIGHTS) and os.path.isfile(folder / entry.name)):
                yield folder / entry.name
        elif depth and entry.is_dir():
            yield from _links(folder / entry.name, depth - 1)


class _AddedToken(msgspec.Struct, frozen=True):
    id: int
    content: str


class _Model(msgspec.Struct, frozen=True):
    vocab: msgspec.Raw = msgspec.Raw(b"{}")


class _Vocabulary(msgspec.Struct, frozen=True):
    """What is read of tokenizer.json (https://huggingface.co/docs/tokenizers/api/models)."""

    added_tokens: msgspec.Raw = msgspec.Raw(b"[]")
    model: _Model = _Model()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} where there is no such file. Raises ModelLoadFailed."""
    data = _read(path, MAX_BYTES)
    if data is None:
        return {}
    _refuse_too_many(path, data, MAX_ELEMENTS)
    try:
        content = json.loads(data)  # not msgspec: configs hold Infinity and NaN
    except (ValueError, RecursionError) as error:
        raise ModelLoadFailed(f"{_shown(path)} is not JSON: {str(error)[:100]}") from error
    if not isinstance(content, dict):
        raise ModelLoadFailed(f"{_shown(path)} is not a JSON object")
    return content


def chat_template(folder: Path, name: str = DEFAULT) -> str | None:
    """The Jinja source of the model's chat template of this name; None where it has none. Raises ModelLoadFailed.

    In transformers' order of precedence, by which a template without a name is the default one:
    1. additional_chat_templates/default.jinja, then chat_template.jinja: "independent chat template file(s) take priority over
       template entries in the tokenizer config" (PreTrainedTokenizerBase._from_pretrained in
       https://github.com/huggingface/transformers/blob/v5.24.0/src/transformers/tokenization_utils_base.py)
    2. chat_template in tokenizer_config.json
    3. chat_template.json, which older versions wrote for models of text and images (ProcessorMixin, processing_utils.py)
    """
    files = [folder / TEMPLATES / f"{name}.jinja", *([folder / "chat_template.jinja"] if name == DEFAULT else [])]
    for path in files:
        if (template := read_template(path)) is not None:
            return template
    for path in (folder / "tokenizer_config.json", folder / "chat_template.json"):
        if template := _stated_template(path, name):
            return template
    return None


def _stated_template(path: Path, name: str) -> str | None:
    template = read_json(path).get("chat_template")
    if isinstance(template, list):  # several, by name
        named = [item for item in template if isinstance(item, dict) and item.get("name") == name]
        template = named[0].get("template", 0) if named else None
    elif name != DEFAULT:
        template = None
    if not isinstance(template, str | None):
        raise ModelLoadFailed(f"{_shown(path)} has a chat_template that is not text")
    return template


def read_template(path: Path) -> str | None:
    """A Jinja file's text; None where there is no such file. Raises ModelLoadFailed."""
    data = _read(path, MAX_BYTES)
    return None if data is None else data.decode(errors="replace")


def end_tokens(folder: Path) -> list[int]:
    """Ids of the tokens that end an answer, in ascending order. Raises ModelLoadFailed.

    All that generation_config.json, config.json, its text_config and tokenizer_config.json name: chat models often have one in
    each of two files, and a model of text and images has its own in text_config.
    """
    config = read_json(folder / "config.json")
    text_config = config.get("text_config")
    tokenizer_config = read_json(folder / "tokenizer_config.json")
    ids: set[int] = set()
    for source in (read_json(folder / "generation_config.json"), config, text_config if isinstance(text_config, dict) else {}):
        stated = source.get("eos_token_id")
        for id in stated if isinstance(stated, list) else [stated]:
            if id is not None:
                ids.add(_token_id(folder, id))
    eos_text = token_text(folder, tokenizer_config.get("eos_token"))
    id = _find(folder, eos_text, tokenizer_config) if eos_text else None
    return sorted(ids if id is None else ids | {_token_id(folder, id)})


def token_text(folder: Path, stated: Any) -> str:
    """The text of a token in tokenizer_config.json, which is a string or an object; "" for null. Raises ModelLoadFailed."""
    text = stated.get("content") if isinstance(stated, dict) else stated or ""
    if not isinstance(text, str):
        raise ModelLoadFailed(f"{folder.name}/tokenizer_config.json has a token that is not text: {_cut(stated)}")
    return text


def _token_id(folder: Path, id: Any) -> int:
    if type(id) is not int or not 0 <= id < 2**31:
        raise ModelLoadFailed(
            f"{folder.name} names the end token {_cut(id)}, which is not a token id: "
            "see eos_token_id in its config.json and generation_config.json"
        )
    return id


def _find(folder: Path, text: str, tokenizer_config: dict[str, Any]) -> int | None:
    """A token's id by its text: in tokenizer.json, else among the tokens that tokenizer_config.json adds to it."""
    path = folder / "tokenizer.json"
    id = None
    if data := _read(path, MAX_VOCABULARY_BYTES):
        try:
            id = _find_in_vocabulary(path, data, text)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ModelLoadFailed(f"{_shown(path)} cannot be read: {str(error)[:100]}") from error
    added = tokenizer_config.get("added_tokens_decoder")
    if id is None and isinstance(added, dict):
        id = next((int(key) for key, token in added.items() if key.isdecimal() and token_text(folder, token) == text), None)
    return id


def _find_in_vocabulary(path: Path, data: bytes, text: str) -> int | None:
    vocabulary = msgspec.json.decode(data, type=_Vocabulary)
    _refuse_too_many(path, bytes(vocabulary.added_tokens), MAX_ELEMENTS)
    for token in msgspec.json.decode(vocabulary.added_tokens, type=list[_AddedToken] | None) or ():
        if token.content == text:
            return token.id
    _refuse_too_many(path, bytes(vocabulary.model.vocab), MAX_VOCABULARY_ELEMENTS)
    vocab = msgspec.json.decode(vocabulary.model.vocab, type=dict[str, int] | list[tuple[str, float]])
    if isinstance(vocab, dict):
        return vocab.get(text)
    return next((id for id, (piece, _) in enumerate(vocab) if piece == text), None)  # of a Unigram model: in the order of their ids


def _refuse_too_many(path: Path, data: bytes, most: int) -> None:
    if sum(map(data.count, (b"[", b"{", b","))) > most:
        raise ModelLoadFailed(f"{_shown(path)} has more than {most:,} elements")


def _read(path: Path, most: int) -> bytes | None:
    """A file's bytes; None where there is no such file. Raises ModelLoadFailed."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ModelLoadFailed(f"{_shown(path)} cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise ModelLoadFailed(f"{_shown(path)} is larger than the {most // 2**20} MiB that such a file may have")
    return data


def _shown(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _cut(value: Any) -> str:
    """A value for a message: JSON may hold half a surrogate pair."""
    return str(value).encode(errors="replace").decode()[:40]
