"""Bodies of the routes that load, unload, switch and download models."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from src.api.schema.fields import Strict


class LoadRequest(Strict):
    model_name: Annotated[str, StringConstraints(min_length=1)]
    stream: bool | None = None


class UnloadRequest(Strict):
    model_name: Annotated[str, StringConstraints(min_length=1)]


class DownloadRequest(Strict):
    """`name`: of the model here; the repository's where it is not given."""

    repo: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
    source: Literal["modelscope", "huggingface", "pypi"] = "modelscope"
    name: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^/\\.\x00-\x1f-][^/\\\x00-\x1f]*$")] | None = None
    revision: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")] | None = None
    include: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=200)]], Field(max_length=100)] = []
    stream: bool | None = None


class SwitchRequest(Strict):
    """`before`: the model whose place is taken; the default one where it is not given."""

    model_name: Annotated[str, StringConstraints(min_length=1)]
    before: Annotated[str, StringConstraints(min_length=1)] | None = None
