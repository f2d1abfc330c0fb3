"""Adapts a conversation with tools to one chat template, whose abilities it finds out by trying. Knows no tokens.

Templates differ: some take a call's arguments as an object and some as its JSON, some one call per message, some no tools at
all. Where a template does not show tools or calls, they are written in plain text: see `tools/prompted.py`.
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from src.errors import ChatTemplateError, InvalidValue
from src.text.repairs import Repairs
from src.text.template import ChatTemplate
from src.text.tool_messages import Message, formed, paired, split, with_short_ids
from src.text.tools import by_name, detect, prompted
from src.text.tools.call import Call, Function
from src.text.tools.plain import plain_tools

NAME, KEY, RESULT, TEXT = "probe_function", "probe_key", "probe_result", "probe_text"
MOST_SHOWN = 1 << 16  # characters of a prompt in which a call is looked for
MOST_PLACES, MOST_CALL = 256, 2048  # where it may begin, and its characters
ASKED = [{"role": "user", "content": TEXT}]
ARGUMENTS = {KEY: "probe_value"}
TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "",
        "parameters": {"type": "object", "properties": {KEY: {"type": "string", "description": ""}}, "required": [KEY]},
    },
}


class Form(NamedTuple):
    messages: list[Message]
    tools: list[dict[str, Any]] | None  # that the template is to show


class Conversation:
    def __init__(self, template: ChatTemplate, format: str | None) -> None:
        """`format`: the name of a tool format, where the template does not tell. Raises ModelLoadFailed where there is none."""
        self._template = template
        self.format = format or detect(template.source)
        self._format = by_name(self.format)
        self._no_tools: list[dict[str, Any]] | None = None
        if not self._try(ASKED) and self._try(ASKED, tools=[TOOL]):
            self._no_tools = []  # a template that was written for tools alone walks over them, without asking whether there are any
        self.shows_tools = NAME in self._try(ASKED, tools=[TOOL])
        shown = {form: text for form in FORMS if (text := self._shown_calls(form))}
        self._form = min(shown, key=lambda form: len(shown[form]), default=None)  # the others say something beside the call
        if format is None and self._form is None and self.shows_tools:
            # It teaches a form that only looks like one that is known here.
            self.format, self._format = "generic", by_name("generic")
        if self.format == "generic":  # what a template teaches in a form that is not known here cannot be read
            self.shows_tools, self._form = False, None
        self._one_call_per_message = self._form is not None and not self._shown_calls(self._form, times=2)
        self._repaired = Repairs(self._prompts, calls=self._form is not None)

    @property
    def repairs(self) -> list[str]:
        """What this template has conversations repaired by."""
        return self._repaired.names

    def forms(self, messages: list[Message], tools: list[dict[str, Any]]) -> Iterator[Form]:
        """How the template may take them: as it wants them, with tools in plainer and plainer forms."""
        messages = paired(messages)
        if self._form is None:
            messages = prompted.without_calls(messages, self._format.write)
        elif self._one_call_per_message:
            messages = split(messages)
        if not tools:
            yield Form(self._put(messages), self._no_tools)
            return
        if self.shows_tools:
            put = self._put(messages)
            yield Form(put, tools)
            yield Form(put, plain_tools(tools))
        told = prompted.instructions(tools, self._format.write)
        yield Form(self._put(prompted.with_instructions(messages, told)), self._no_tools)

    def _put(self, messages: list[Message]) -> list[Message]:
        """As the template takes them."""
        messages = self._repaired(messages)
        return [self._formed(message) for message in messages] if self._form else messages

    def _prompts(self, messages: list[Message]) -> list[str]:
        """With tools and without; "" where the template refuses the messages."""
        has_calls = any(message.get("tool_calls") for message in messages)
        if has_calls:
            messages = [self._formed(message) for message in messages]
        with_tools = [self._try(messages, [TOOL])] if self.shows_tools else []
        return with_tools if with_tools and has_calls else [*with_tools, self._try(messages)]

    def _try(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
        try:
            return self._template.render(messages, tools=tools or self._no_tools)
        except (InvalidValue, ChatTemplateError):
            return ""

    def _shown_calls(self, form: "tuple[bool, str | None]", times: int = 1) -> str:
        """A prompt with so many calls and results; "" where the template does not show them as it should."""
        ids = [f"probe000{place}" for place in range(times)]
        calls = [{"id": id, "type": "function", "function": {"name": NAME, "arguments": json.dumps(ARGUMENTS)}} for id in ids]
        results = [{"role": "tool", "tool_call_id": id, "name": NAME, "content": RESULT} for id in ids]
        answer = {"role": "assistant", "content": None, "tool_calls": calls}
        tools = [TOOL] if self.shows_tools else None
        shown = self._try([*ASKED, _formed(answer, form), *results], tools)
        without = self._try(ASKED, tools)
        all_are_shown = (
            shown.count(NAME) >= without.count(NAME) + times
            and shown.count(KEY) == without.count(KEY) + times
            and shown.count(RESULT) == times
        )
        is_escaped = f"'{KEY}'" in shown or f'\\"{KEY}' in shown  # Python's form of an object, JSON in JSON
        return shown if all_are_shown and not is_escaped and self._can_be_read(shown) else ""

    def _can_be_read(self, shown: str) -> bool:
        """Whether the call that the template has written is one for the format's reader."""
        first = self._format.write([Call(NAME, ARGUMENTS)])[0]
        places = (place for place, character in enumerate(shown[:MOST_SHOWN]) if character == first)
        for place in islice(places, MOST_PLACES):
            reader = self._format.reader([Function(NAME)])
            delta = reader.push(shown[place : place + MOST_CALL])
            delta.add(reader.flush())
            if delta.calls and delta.calls[0].name == NAME and KEY in "".join(piece.arguments for piece in delta.calls):
                return True
        return False

    def _formed(self, message: Message) -> Message:
        assert self._form
        if self.format in ("mistral", "mistral_args"):
            message = with_short_ids(message)
        return _formed(message, self._form)


# Whether a call's arguments are an object, and what the content is where the message has only calls.
FORMS: tuple[tuple[bool, str | None], ...] = ((True, ""), (True, None), (False, ""), (False, None))


def _formed(message: Message, form: tuple[bool, str | None]) -> Message:
    return formed(message, objects=form[0], empty=form[1])
