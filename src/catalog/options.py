"""models.toml: what the operator wants of single models. Knows neither what is in the folder nor what uses it.

["Qwen2.5-0.5B-Instruct"]
aliases = ["gpt-4o-mini"]
context_length = 8192
temperature = 0.7
"""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from src.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "models.toml"
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class ModelOptions(BaseModel):
    """One table of models.toml. What is not there is as the settings have it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    aliases: tuple[Name, ...] = Field((), description="other names of the model")
    engine: Literal["mlx", "vllm", "llama_cpp"] | None = Field(None, description="in place of INFERENCE_ENGINE")
    context_length: int | None = Field(None, strict=True, ge=1, le=2**31 - 1, description="in place of CONTEXT_LENGTH, in tokens")
    max_parallel_sequences: int | None = Field(None, strict=True, ge=1, le=256, description="in place of MAX_PARALLEL_SEQUENCES")
    chat_template: Path | None = Field(None, description="a Jinja file in the models folder, in place of the model's own")
    tool_format: Name | None = Field(None, description="how the model writes tool calls, where its template does not tell")
    lora: tuple[Path, ...] = Field((), description="LoRA adapters in the models folder (GGUF, for llama_cpp)")
    pinned: bool = Field(False, strict=True, description="never unloaded to make room or for being idle")
    ttl: float | None = Field(None, strict=True, ge=0, description="in place of MODEL_IDLE_SECONDS")
    # Of requests that do not say otherwise.
    temperature: float | None = Field(None, strict=True, ge=0, le=2, description="default of requests")
    top_p: float | None = Field(None, strict=True, ge=0, le=1, description="default of requests")
    top_k: int | None = Field(None, strict=True, ge=-1, le=2**31 - 1, description="default of requests")
    min_p: float | None = Field(None, strict=True, ge=0, le=1, description="default of requests")
    presence_penalty: float | None = Field(None, strict=True, ge=-2, le=2, description="default of requests")
    frequency_penalty: float | None = Field(None, strict=True, ge=-2, le=2, description="default of requests")
    repetition_penalty: float | None = Field(None, strict=True, gt=0, le=2, description="default of requests")

    def sampling(self) -> dict[str, float]:
        """The defaults of requests that are set."""
        names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


NONE = ModelOptions.model_validate({})


def read_options(folder: Path) -> dict[str, ModelOptions]:
    """The tables of models.toml by model name; {} without such a file.

    Raises SettingsError with one line: file, table, key, value, what was expected.
    """
    path = folder / FILE
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    options = {name: _options(path, name, table) for name, table in tables.items()}
    _see_that_aliases_differ(path, options)
    for name, of in options.items():
        for file in filter(None, [of.chat_template, *of.lora]):
            _see_that_inside(path, name, file)
    return options


def _options(path: Path, name: str, table: Any) -> ModelOptions:
    if not isinstance(table, dict):
        raise SettingsError(f'{path}: {name} = {table!r} is wrong: expected a table of a model\'s settings, ["{name}"]')
    try:
        return ModelOptions.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            hint = ""
            if isinstance(first["input"], dict):  # [Qwen2.5-0.5B] is a table 5-0 with a table 5B in a table Qwen2
                hint = f'. A model\'s name with a dot needs quotes: ["{name}.{key}…"]'
            known = ", ".join(ModelOptions.model_fields)
            raise SettingsError(f'{path}: ["{name}"] {key} is wrong: expected one of {known}{hint}') from error
        expected = first["msg"].removeprefix("Input should be ")
        description = ModelOptions.model_fields[key].description
        raise SettingsError(f'{path}: ["{name}"] {key} = {_shown(table[key])} is wrong: expected {expected} ({description})') from error


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)[:100]


def _see_that_aliases_differ(path: Path, options: dict[str, ModelOptions]) -> None:
    owners: dict[str, str] = {name: name for name in options}
    for name, of in options.items():
        for alias in of.aliases:
            if alias in owners:
                raise SettingsError(
                    f'{path}: ["{name}"] aliases has {alias!r}, which names {owners[alias]!r} already: expected a name of its own'
                )
            owners[alias] = name


def _see_that_inside(path: Path, name: str, file: Path) -> None:
    place = path.parent / file
    if file.is_absolute() or ".." in file.parts:
        raise SettingsError(f'{path}: ["{name}"] {str(file)!r} is wrong: expected a path inside the models folder')
    if not place.is_file():
        raise SettingsError(f'{path}: ["{name}"] {str(file)!r} is wrong: there is no such file in {path.parent}')
