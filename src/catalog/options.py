"""models.toml: what the operator wants of single models. Knows neither what is in the folder nor what uses it.

["Qwen2.5-0.5B-Instruct"]
aliases = ["gpt-4o-mini", "claude-*"]
context_length = 8192
temperature = 0.7
"""

import os
import stat
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from src.errors import SettingsError
from src.sampling import SAMPLING_FIELDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "models.toml"
MAX_BYTES = 2**20
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class VLLMOptions(BaseModel):
    """vLLM's own settings of one model, by vLLM's names. Those of the service that mean the same go without saying:
    context_length is max_model_len, max_parallel_sequences max_num_seqs, ENABLE_CACHING enable_prefix_caching."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["auto", "float16", "bfloat16", "float32"] | None = Field(None, description="type of the weights in memory")
    quantization: Name | None = Field(None, description="how the weights are quantised")
    kv_cache_dtype: Name | None = Field(None, description="type of the KV cache")
    gpu_memory_utilization: float | None = Field(None, strict=True, gt=0, le=1, description="share of each GPU's memory")
    tensor_parallel_size: int | None = Field(None, strict=True, ge=1, le=1024, description="GPUs that share each layer")
    pipeline_parallel_size: int | None = Field(None, strict=True, ge=1, le=1024, description="groups that share the layers out")
    data_parallel_size: int | None = Field(None, strict=True, ge=1, le=1024, description="copies of the model, each with GPUs of its own")
    distributed_executor_backend: Literal["mp", "ray"] | None = Field(None, description="this machine's processes, or Ray's")
    enforce_eager: bool | None = Field(None, strict=True, description="compile nothing")
    block_size: int | None = Field(None, strict=True, ge=8, le=1024, description="tokens of one block of the KV cache")
    max_num_batched_tokens: int | None = Field(None, strict=True, ge=32, le=2**20, description="tokens of one step")
    speculative_config: dict[str, Any] | None = Field(None, description="vLLM's speculative decoding")


OWN_TABLES: dict[str, type[BaseModel]] = {"vllm": VLLMOptions}  # of single engines, within a model's


class ModelOptions(BaseModel):
    """One table of models.toml. What is not there is as the settings have it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    aliases: tuple[Name, ...] = Field((), description="other names of the model; * in one stands for any characters")
    engine: Literal["mlx", "vllm", "llama_cpp"] | None = Field(None, description="in place of INFERENCE_ENGINE")
    context_length: int | None = Field(None, strict=True, ge=1, le=2**31 - 1, description="in place of CONTEXT_LENGTH, in tokens")
    max_parallel_sequences: int | None = Field(None, strict=True, ge=1, le=256, description="in place of MAX_PARALLEL_SEQUENCES")
    chat_template: Path | None = Field(None, description="a Jinja file in the models folder, in place of the model's own")
    tool_format: Name | None = Field(None, description="how the model writes tool calls, where its template does not tell")
    lora: tuple[Path, ...] = Field((), description="LoRA adapters in the models folder (GGUF for llama_cpp, a folder for vllm)")
    adapters: dict[Name, Path] = Field({}, description="LoRA adapters (vllm) by the model names under which requests ask for them")
    vllm: VLLMOptions = Field(VLLMOptions.model_validate({}), description="a table of vLLM's own settings")
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

    @property
    def names(self) -> list[str]:
        """All that requests may call it by, with one of its adapters or without, beside its own name."""
        return [*self.aliases, *self.adapters]

    @property
    def files(self) -> list[Path]:
        """Those it names, relative to the models folder."""
        return [*filter(None, [self.chat_template]), *self.lora, *self.adapters.values()]

    def vllm_settings(self) -> dict[str, Any]:
        """Those of vLLM's own settings that are set."""
        return self.vllm.model_dump(exclude_none=True)

    def sampling(self) -> dict[str, float]:
        """The defaults of requests that are set."""
        return {name: value for name in SAMPLING_FIELDS if (value := getattr(self, name)) is not None}

    def over(self, makers: dict[str, float]) -> "ModelOptions":
        """These, with the sampling that a model's makers recommend where they leave it open."""
        return self.model_copy(update={**makers, **self.sampling()})


NONE = ModelOptions.model_validate({})


def read_options(folder: Path) -> dict[str, ModelOptions]:
    """The tables of models.toml by model name; {} without such a file.

    Raises SettingsError with one line: file, table, key, value, what was expected.
    """
    path = folder / FILE
    try:
        tables = tomllib.loads(_read(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    options = {name: _options(path, name, table) for name, table in tables.items()}
    _check_names_differ(path, options)
    for name, model in options.items():
        for file in model.files:
            _check_inside(path, name, file)
    return options


def _read(path: Path) -> str:
    """Raises OSError, UnicodeError, and SettingsError of what never ends, never begins, or is none of an operator's."""
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():  # a pipe would be waited for
        raise SettingsError(f"{path} cannot be read: it is not a regular file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_BYTES:,} bytes")
    return data.decode()


def _options(path: Path, name: str, table: Any) -> ModelOptions:
    if not isinstance(table, dict):
        raise SettingsError(f'{path}: {name} = {table!r} is wrong: expected a table of a model\'s settings, ["{name}"]')
    try:
        return ModelOptions.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        table_name = str(first["loc"][0])
        inner = table_name in OWN_TABLES and len(first["loc"]) > 1
        kind: type[BaseModel] = OWN_TABLES[table_name] if inner else ModelOptions
        key, within = (str(first["loc"][1]), f"{table_name}.") if inner else (table_name, "")
        if first["type"] == "extra_forbidden":
            hint = ""
            if isinstance(first["input"], dict) and not inner:  # [Qwen2.5-0.5B] is a table 5-0 with a table 5B in a table Qwen2
                hint = f'. A model\'s name with a dot needs quotes: ["{name}.{key}…"]'
            known = ", ".join(kind.model_fields)
            raise SettingsError(f'{path}: ["{name}"] {within}{key} is wrong: expected one of {known}{hint}') from error
        expected = first["msg"].removeprefix("Input should be ")
        value = (table[table_name] if inner else table)[key]
        description = kind.model_fields[key].description
        raise SettingsError(f'{path}: ["{name}"] {within}{key} = {_shown(value)} is wrong: expected {expected} ({description})') from error


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)[:100]


def _check_names_differ(path: Path, options: dict[str, ModelOptions]) -> None:
    owners: dict[str, str] = {name: name for name in options}
    for name, model in options.items():
        for key, names in (("aliases", model.aliases), ("adapters", model.adapters)):
            for other in names:
                if other in owners:
                    raise SettingsError(
                        f'{path}: ["{name}"] {key} has {other!r}, which already names {owners[other]!r}: expected a unique name'
                    )
                owners[other] = name


def _check_inside(path: Path, name: str, file: Path) -> None:
    place = path.parent / file
    if file.is_absolute() or ".." in file.parts:
        raise SettingsError(f'{path}: ["{name}"] {str(file)!r} is wrong: expected a path inside the models folder')
    if not (os.path.isfile(place) or os.path.isdir(place)):  # also of what no path can be; a pipe would be waited for
        raise SettingsError(f'{path}: ["{name}"] {str(file)!r} is wrong: there is no such file in {path.parent}')
