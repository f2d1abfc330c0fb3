"""A chat template in a process of its own. Knows nothing of Jinja or messages.

The sandbox keeps a template from the machine, but not from taking all of its time and memory: one multiplication may do that, in
code that no thread can interrupt. Here it costs that process alone.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from src import errors
from src.errors import ChatTemplateTooCostly, InvalidValue, ModelLoadFailed, ServiceError
from src.text.child_process import ChildFailed, ChildNotStarted, ChildProcess, ChildTimedOut, ChildTookTooMuch, Memory

PATIENCE = 10  # times the processor time it may use: so long may that take where others use the processors
MEMORY = Memory(1 << 28, 16)  # that a template may take
LEAST_ANSWER, GROWTH = 5 << 20, 16  # bytes that may come back, and for each that was sent: more than the sandbox lets a template write


class Template(msgspec.Struct, frozen=True):
    """The setup of the process."""

    source: str
    bos_text: str
    eos_text: str
    seconds: float  # of processor time for each prompt


class Compiled(msgspec.Struct, frozen=True, tag=True):
    variables: list[str]


class Refused(msgspec.Struct, frozen=True, tag=True):
    """An error of src.errors, by its class's name."""

    kind: str
    message: str
    param: str | None = None

    def error(self) -> ServiceError:
        kind: type[ServiceError] = {
            "ModelLoadFailed": ModelLoadFailed,
            "InvalidValue": InvalidValue,
            "ChatTemplateError": errors.ChatTemplateError,
        }.get(self.kind, ChatTemplateTooCostly)
        return kind(self.message, self.param)


TEXT, REFUSED = b"\0", b"\1"  # what an answer begins with


class RendererProcess:
    """Any thread may render; one prompt at a time."""

    def __init__(self, source: str, bos_text: str, eos_text: str, seconds: float) -> None:
        """Raises ModelLoadFailed, ChatTemplateTooCostly."""
        setup = msgspec.msgpack.encode(Template(source.encode(errors="replace").decode(), bos_text, eos_text, seconds))
        self._seconds = seconds
        self._child = ChildProcess("src.text.template", setup, MEMORY, PATIENCE * seconds)
        compiled = msgspec.msgpack.decode(self._answer(self._child.start), type=Compiled | Refused)
        if isinstance(compiled, Refused):
            self._child.close()
            raise compiled.error()
        self.variables = frozenset(compiled.variables)  # those the template looks for

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def render(self, variables: Mapping[str, Any]) -> str:
        """Raises InvalidValue, ChatTemplateError, ChatTemplateTooCostly."""
        try:
            question = json.dumps(variables).encode()  # not msgspec: it has no integers of more than 64 bits
        except (RecursionError, ValueError):
            raise InvalidValue("These messages are nested too deep.", "messages") from None
        max_answer = LEAST_ANSWER + GROWTH * len(question)
        answer = self._answer(lambda: self._child.ask(question, PATIENCE * self._seconds, max_answer))
        if answer[:1] == TEXT:
            return answer[1:].decode()
        raise msgspec.msgpack.decode(answer[1:], type=Refused).error()

    def close(self) -> None:
        self._child.close()

    def _answer(self, ask: Callable[[], bytes]) -> bytes:
        try:
            return ask()
        except ChildNotStarted as error:
            raise ModelLoadFailed("the process that renders chat templates did not start") from error
        except ChildTimedOut:
            what = f"takes longer than the {self._seconds:g} s that TEMPLATE_SECONDS allows"
        except ChildTookTooMuch:
            what = "takes too much memory"
        except ChildFailed:
            what = "takes so much that the process which renders it ends"
        raise ChatTemplateTooCostly(f"The model's chat template {what}.", "messages")
