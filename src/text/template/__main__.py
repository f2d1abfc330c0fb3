"""`python -m src.text.template`: the child of process.py, which compiles a template and renders it."""

import encodings.unicode_escape
import html
import json
import pprint
import time
from collections.abc import Callable

import jinja2.constants
import jinja2.debug
import msgspec

from src.errors import ChatTemplateTooCostly, InvalidValue, ServiceError
from src.text.child_process import Bounds, detach, serve
from src.text.template.process import MEMORY, REFUSED, TEXT, Compiled, Refused, Template
from src.text.template.sandbox import Sandbox

# What Jinja imports when a template first needs it, while no file can be opened any more.
NEEDED = (encodings.unicode_escape, html, jinja2.constants, jinja2.debug, pprint)


def setup(data: bytes) -> tuple[bytes, Callable[[bytes], bytes] | None]:
    """Compile the template. Each further message is what to render it with."""
    template = msgspec.msgpack.decode(data, type=Template)
    bounds = Bounds(template.seconds, MEMORY)
    with bounds.around(len(template.source)):
        sandbox = _compile(template)
    if isinstance(sandbox, Refused):
        return msgspec.msgpack.encode(sandbox), None

    def answer(question: bytes) -> bytes:
        with bounds.around(len(question)):
            return _render(sandbox, question)

    return msgspec.msgpack.encode(Compiled(sorted(sandbox.variables))), answer


def _compile(template: Template) -> Sandbox | Refused:
    try:
        return Sandbox(template.source, template.bos_text, template.eos_text)
    except ServiceError as error:
        return _refusal(error)
    except MemoryError:
        return Refused("ModelLoadFailed", "the model's chat template takes too much memory to compile")


def _render(sandbox: Sandbox, question: bytes) -> bytes:
    try:
        return TEXT + sandbox.render(json.loads(question), len(question)).encode(errors="replace")
    except ServiceError as error:
        return _refused(error)
    except MemoryError:
        return _refused(ChatTemplateTooCostly("The model's chat template takes too much memory on these messages.", "messages"))
    except (RecursionError, ValueError):
        return _refused(InvalidValue("These messages are nested too deep.", "messages"))


def _refused(error: ServiceError) -> bytes:
    return REFUSED + msgspec.msgpack.encode(_refusal(error))


def _refusal(error: ServiceError) -> Refused:
    return Refused(type(error).__name__, error.message.encode(errors="replace").decode(), error.param)


if __name__ == "__main__":
    detach()
    time.localtime()  # reads the time zone's file
    serve(setup)
