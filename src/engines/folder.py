"""What engines need to know from the files of a Hugging Face folder beside its weights. Knows no engine."""

import json
from pathlib import Path
from typing import Any

from src.errors import ModelLoadFailed


def end_tokens(folder: Path) -> list[int]:
    """Tokens that end an answer, of all that the folder's files name: chat models often have one in each of two files."""
    config = read_json(folder / "config.json")
    text = config.get("text_config")  # a model of text and pictures has the former in a part
    stated = [
        of.get("eos_token_id") for of in (config, text if isinstance(text, dict) else {}, read_json(folder / "generation_config.json"))
    ]
    ends = {token for one in stated for token in (one if isinstance(one, list) else [one]) if token is not None}
    eos = read_json(folder / "tokenizer_config.json").get("eos_token")
    content = eos.get("content") if isinstance(eos, dict) else eos
    added = read_json(folder / "tokenizer.json").get("added_tokens", [])
    return sorted(ends | {token["id"] for token in added if token["content"] == content})


def read_json(path: Path) -> dict[str, Any]:
    """{} where there is no such file. Raises ModelLoadFailed where it is no JSON."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ModelLoadFailed(f"{path.parent.name}/{path.name} is no JSON: {error}") from error
    return content
