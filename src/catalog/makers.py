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
    config = read_json(folder / FILE)
    return {name: config[name] for name in SAMPLING_FIELDS if _is_valid(name, config.get(name))}


def _is_valid(name: str, value: Any) -> bool:
    try:
        return getattr(ModelOptions.model_validate({name: value}), name) is not None
    except ValidationError:
        return False
