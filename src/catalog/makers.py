"""The sampling that a model's makers recommend: generation_config.json beside its weights, as transformers and vLLM read it."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from src.catalog.options import ModelOptions
from src.hf_folder import read_json
from src.sampling import SAMPLING_FIELDS

FILE = "generation_config.json"


def makers_sampling(folder: Path) -> dict[str, float]:
    """By a request's fields; those that no request could have are left out. {} without the file. Raises ModelLoadFailed."""
    return valid_sampling(read_json(folder / FILE))


def valid_sampling(stated: dict[str, Any]) -> dict[str, float]:
    """What of it a request could have."""
    return {name: stated[name] for name in SAMPLING_FIELDS if _is_valid(name, stated.get(name))}


def _is_valid(name: str, value: Any) -> bool:
    try:
        return getattr(ModelOptions.model_validate({name: value}), name) is not None
    except ValidationError:
        return False
