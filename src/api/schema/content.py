"""What a message is made of in every API, each form to the parts of a Chat. Here, and nowhere else, other media are left out or refused.

To add a content type: its part in conversation.py, its forms here, and the rendering in Message.as_dict().
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Discriminator, Field, StringConstraints, Tag, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from src.api.schema.conversation import Reasoning, Text, Tool, ToolCall, ToolResult, arguments_of
from src.api.schema.fields import AsList, AsString, ByShape, LeftOut, Name, Strict, type_of
from src.api.schema.limits import AtMost
from src.errors import FIELD, UnsupportedContent
from src.settings import Limits

# What a type of part or block has in its name, and how the note in its place calls it.
MEDIA = {"image": "an image", "audio": "an audio clip", "video": "a video", "file": "a file", "document": "a document"}
AS_TEXT, AS_REFUSAL, AS_MEDIUM = "as text", "as refusal", "as medium"


class Medium(LeftOut):
    """A part that is no text. What it points to is never fetched: the model reads a note in its place."""

    @property
    def text(self) -> str:
        what = next((name for word, name in MEDIA.items() if word in self.type), f"a part of the type {self.type[:64]!r}")
        return f"[{what} was here; this model takes text only]"

    @property
    def is_medium(self) -> bool:
        """False for what the API's owner would have added itself, such as the results of a search."""
        return _is_medium(self.type)

    def part(self) -> Text:
        return Text(self.text)


AnyMedium = Annotated[SkipJsonSchema[Medium], Tag(AS_MEDIUM)]  # left out of the JSON schemas: the document lists what is accepted


def _by_type(tag: Callable[[str], str]) -> Discriminator:
    """`tag` of a part's type; a part without one is checked as text, which says what it lacks."""

    def tag_of(part: Any) -> str:
        kind = type_of(part)
        return AS_TEXT if kind is None else tag(kind)

    return Discriminator(tag_of)


def _is_medium(kind: str) -> bool:
    return any(word in kind for word in MEDIA)


NULLABLE: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
Said = Annotated[str, BeforeValidator(lambda text: "" if text is None else text), WithJsonSchema(NULLABLE)]


# OpenAI's chats


class ChatText(Strict):
    type: Literal["text", "input_text", "output_text", "refusal"]
    text: Said = Field(validation_alias=AliasChoices("text", "refusal"))


class ChatThought(Strict):
    """What the assistant thought, as a part of its message."""

    type: Literal["thinking"]
    thinking: Annotated[Annotated[str, AsString] | Annotated[list[ChatText], AtMost("max_content_parts"), AsList], ByShape]

    @property
    def text(self) -> str:
        return self.thinking if isinstance(self.thinking, str) else "\n".join(part.text for part in self.thinking)


ChatPart = Annotated[
    Annotated[ChatText, Tag(AS_TEXT)] | Annotated[ChatThought, Tag("as thinking")] | AnyMedium,
    _by_type(lambda kind: AS_MEDIUM if _is_medium(kind) else "as thinking" if kind == "thinking" else AS_TEXT),
]
ChatContent = Annotated[Annotated[str, AsString] | Annotated[list[ChatPart], AtMost("max_content_parts"), AsList], ByShape]

NotEmpty = Annotated[str, StringConstraints(min_length=1)]


class CalledFunction(Strict):
    name: NotEmpty
    arguments: str | dict[str, Any] | None = None  # JSON


NO_ID = "call"  # of a call that a client keeps no ID of: where there are several, the template's side tells them apart


class ChatToolCall(Strict):
    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledFunction

    def part(self) -> ToolCall:
        return ToolCall(self.id or NO_ID, self.function.name, arguments_of(self.function.arguments))


class CalledCustom(Strict):
    name: NotEmpty
    input: Said


class ChatCustomCall(Strict):
    id: str | None = None
    type: Literal["custom"]
    custom: CalledCustom

    def part(self) -> ToolCall:
        return ToolCall(self.id or NO_ID, self.custom.name, arguments_of({"input": self.custom.input}))


AnyCall = Annotated[
    Annotated[ChatToolCall, Tag("as function")] | Annotated[ChatCustomCall, Tag("as custom")],
    Discriminator(lambda call: "as custom" if type_of(call) == "custom" else "as function"),
]


# OpenAI's Responses


class ResponseText(Strict):
    type: Literal["input_text", "output_text", "text"]
    text: Said
    annotations: Any = None
    logprobs: Any = None


class ResponseRefusal(Strict):
    type: Literal["refusal"]
    refusal: Said

    @property
    def text(self) -> str:
        return self.refusal


def _response_tag(kind: str) -> str:
    return AS_REFUSAL if kind == "refusal" else AS_MEDIUM if _is_medium(kind) else AS_TEXT


ResponsePart = Annotated[
    Annotated[ResponseText, Tag(AS_TEXT)] | Annotated[ResponseRefusal, Tag(AS_REFUSAL)] | AnyMedium, _by_type(_response_tag)
]
ResponseContent = Annotated[Annotated[str, AsString] | Annotated[list[ResponsePart], AtMost("max_content_parts"), AsList], ByShape]


# Anthropic's Messages


class TextBlock(Strict):
    type: Literal["text"]
    text: Said
    cache_control: Any = None  # prompts are cached without being asked
    citations: Any = None

    def part(self) -> Text:
        return Text(self.text)


class ThinkingBlock(Strict):
    type: Literal["thinking"]
    thinking: str
    signature: str | None = None

    def part(self) -> Reasoning:
        return Reasoning(self.thinking)


class RedactedThinkingBlock(Strict):
    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(Strict):
    type: Literal["tool_use"]
    id: Name
    name: Name
    input: dict[str, Any]
    cache_control: Any = None

    def part(self) -> ToolCall:
        return ToolCall(self.id, self.name, arguments_of(self.input))


class ToolReferenceBlock(Strict):
    """Part of the result of a search for tools: from here on the model knows the tool it names."""

    type: Literal["tool_reference"]
    tool_name: Name


KNOWN_BLOCKS = ("text", "thinking", "redacted_thinking", "tool_use", "tool_result")
TextOnly = Annotated[Annotated[TextBlock, Tag(AS_TEXT)] | AnyMedium, _by_type(lambda kind: AS_TEXT if kind in KNOWN_BLOCKS else AS_MEDIUM)]
TextBlocks = Annotated[Annotated[str, AsString] | Annotated[list[TextOnly], AtMost("max_content_parts"), AsList], ByShape]


def _result_tag(kind: str) -> str:
    return "as tool_reference" if kind == "tool_reference" else AS_TEXT if kind in KNOWN_BLOCKS else AS_MEDIUM


ResultPart = Annotated[
    Annotated[TextBlock, Tag(AS_TEXT)] | Annotated[ToolReferenceBlock, Tag("as tool_reference")] | AnyMedium, _by_type(_result_tag)
]
ResultContent = Annotated[Annotated[str, AsString] | Annotated[list[ResultPart], AtMost("max_content_parts"), AsList], ByShape]


class ToolResultBlock(Strict):
    type: Literal["tool_result"]
    tool_use_id: Name
    content: ResultContent | None = None
    is_error: bool | None = None
    cache_control: Any = None

    def part(self, tools: Mapping[str, Tool]) -> ToolResult:
        """`tools`: by their names, all that the request has. The text of a reference is the tool it brings."""
        if not isinstance(self.content, list):
            return ToolResult(self.tool_use_id, texts(self.content))
        parts = [Text(_brought(part, tools)) if isinstance(part, ToolReferenceBlock) else part.part() for part in self.content]
        return ToolResult(self.tool_use_id, tuple(part for part in parts if part.text) or (Text(""),))


def _brought(reference: ToolReferenceBlock, tools: Mapping[str, Tool]) -> str:
    tool = tools.get(reference.tool_name)
    return json.dumps(tool.as_dict(), ensure_ascii=False) if tool else reference.tool_name


Block = Annotated[
    Annotated[TextBlock, Tag(AS_TEXT)]
    | Annotated[ThinkingBlock, Tag("as thinking")]
    | Annotated[RedactedThinkingBlock, Tag("as redacted_thinking")]
    | Annotated[ToolUseBlock, Tag("as tool_use")]
    | Annotated[ToolResultBlock, Tag("as tool_result")]
    | AnyMedium,
    _by_type(lambda kind: f"as {kind}" if kind in KNOWN_BLOCKS else AS_MEDIUM),
]
BlockContent = Annotated[Annotated[str, AsString] | Annotated[list[Block], AtMost("max_content_parts"), AsList], ByShape]


# What they have in common


def texts(content: str | list[Any] | None) -> tuple[Text, ...]:
    """A content that is text alone, as parts: one at least, so that an empty content stays one."""
    if content is None or isinstance(content, str):
        return (Text(content or ""),)
    return tuple(Text(part.text) for part in content) or (Text(""),)


def refuse_new_media(field: str, said: Sequence[tuple[str, Any]], limits: Limits) -> None:
    """`said`: role and content of each item of the field. Raises UnsupportedContent for a picture in what a user says that no answer
    has followed yet, unless UNSUPPORTED_MEDIA allows a note in its place.

    Earlier messages and tool results always get the note: otherwise one picture would end a conversation.
    """
    if limits.unsupported_media == "note":
        return
    for place, (role, content) in reversed(list(enumerate(said))):
        if role == "assistant":
            return
        for index, part in enumerate(content if role == "user" and isinstance(content, list) else []):
            if isinstance(part, Medium) and part.is_medium:
                path = (field, place, "content", index)
                raise UnsupportedContent(f"{FIELD} is of type {part.type[:64]!r}; this server accepts text only.", path)
