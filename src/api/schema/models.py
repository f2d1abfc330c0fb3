"""Bodies of the routes that load, unload, switch and download models."""

from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints, ValidationInfo, field_validator

from src.api.schema.fields import Strict
from src.api.schema.limits import AtMost
from src.download.reference import parse_name, parse_pattern, parse_repo, parse_revision


class LoadRequest(Strict):
    model_name: Annotated[str, StringConstraints(min_length=1)]
    stream: bool | None = None


class UnloadRequest(Strict):
    model_name: Annotated[str, StringConstraints(min_length=1)]


class DownloadRequest(Strict):
    """`name`: of the model here; the repository's where it is not given. What each word may be, src/download/reference.py has."""

    source: Literal["modelscope", "huggingface", "pypi"] = "modelscope"
    repo: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    name: Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(parse_name)] | None = None
    revision: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    include: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(parse_pattern)]],
        AtMost(100),
    ] = []
    stream: bool | None = None

    @field_validator("repo", "revision")
    @classmethod
    def _by_its_source(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None or "source" not in info.data:
            return text
        parse = parse_repo if info.field_name == "repo" else parse_revision
        return parse(text, info.data["source"])


class SwitchRequest(Strict):
    """`before`: the model whose place is taken; the default one where it is not given."""

    model_name: Annotated[str, StringConstraints(min_length=1)]
    before: Annotated[str, StringConstraints(min_length=1)] | None = None
