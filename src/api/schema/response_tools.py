"""Tools of the Responses API, as functions that a model can call, and how a call of one is reported in the API's own terms."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from src.api.schema.conversation import Tool
from src.api.schema.fields import Strict, type_of
from src.api.schema.limits import AtMost
from src.api.schema.tools import CUSTOM_PARAMETERS, Description, FunctionName, LeftOutTool, Parameters, Tools

CalledAs = dict[str, str]  # type, name and namespace of a call's item


def qualified(namespace: str | None, name: str) -> str:
    """What the model calls a function of a namespace."""
    return f"{namespace}__{name}" if namespace else name


class FunctionTool(Strict):
    type: Literal["function"]
    name: FunctionName
    description: Description | None = None
    parameters: Parameters | None = None
    strict: bool | None = None

    def tools(self) -> Sequence[Tool]:
        return (Tool(self.name, self.description, self.parameters, bool(self.strict)),)

    def called_as(self) -> Mapping[str, CalledAs]:
        return {}


class CustomTool(Strict):
    """Takes text in place of JSON. What its `format` asks of the text is not enforced."""

    type: Literal["custom"]
    name: FunctionName
    description: Description | None = None

    def tools(self) -> Sequence[Tool]:
        return (Tool(self.name, self.description, CUSTOM_PARAMETERS),)

    def called_as(self) -> Mapping[str, CalledAs]:
        return {self.name: _called(True, name=self.name)}


def _called(is_custom: bool, **names: str) -> CalledAs:
    return {"type": "custom_tool_call" if is_custom else "function_call", **names}


def _tag(tool: Any) -> str:
    kind = type_of(tool)
    return f"as {kind or 'function'}" if kind in (None, "function", "custom", "namespace") else "as left out"


Member = Annotated[
    Annotated[FunctionTool, Tag("as function")]
    | Annotated[CustomTool, Tag("as custom")]
    | Annotated[LeftOutTool, Tag("as left out")]
    | Annotated[LeftOutTool, Tag("as namespace")],
    Discriminator(_tag),
]


class NamespaceTool(Strict):
    """Functions under a common name. A model is shown each under a name of its own."""

    type: Literal["namespace"]
    name: FunctionName
    description: Description | None = None
    members: Annotated[list[Annotated[Member, WithJsonSchema({"type": "object"})]], AtMost("max_tools")] = Field(alias="tools")

    def tools(self) -> Sequence[Tool]:
        return [
            Tool(qualified(self.name, tool.name), tool.description, tool.parameters, tool.strict)
            for member in self.members
            for tool in member.tools()
        ]

    def called_as(self) -> Mapping[str, CalledAs]:
        custom = {member.name for member in self.members if isinstance(member, CustomTool)}
        return {
            qualified(self.name, tool.name): _called(tool.name in custom, name=tool.name, namespace=self.name)
            for member in self.members
            for tool in member.tools()
        }


AnyTool = Annotated[
    Annotated[FunctionTool, Tag("as function")]
    | Annotated[CustomTool, Tag("as custom")]
    | Annotated[NamespaceTool, Tag("as namespace")]
    | Annotated[SkipJsonSchema[LeftOutTool], Tag("as left out")],
    Discriminator(_tag),
]
ResponsesTools = Tools[AnyTool]


def called_as(forms: Iterable[AnyTool] | None) -> dict[str, CalledAs]:
    """What identifies a call in its item, by the name that the model uses; nothing for plain functions."""
    return {name: told for form in forms or [] if not isinstance(form, LeftOutTool) for name, told in form.called_as().items()}
