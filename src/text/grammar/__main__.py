"""`python -m src.text.grammar`: the child of process.py, which compiles grammars."""

import os
import threading
from collections.abc import Callable

import msgspec

from src.text.child_process import Bounds, detach, serve
from src.text.grammar.matcher import Refused, compile_source, try_out
from src.text.grammar.process import MEMORY, Setup

STACK_BYTES = 1 << 20  # less than the runner's threads have, so that what passes here passes there
NICENESS = 5  # the streams of others come first


def setup(data: bytes) -> tuple[bytes, Callable[[bytes], bytes] | None]:
    """Prepare the vocabulary. Each further message is a source, answered by None or by why it is refused."""
    message = msgspec.msgpack.decode(data, type=Setup)
    # Without the model's own way to cut a text into tokens; where the next bytes are certain, llguidance wants some.
    vocabulary = message.vocabulary.prepare(message.vocabulary.prepare(lambda text: []).greedy_tokenize)
    bounds = Bounds(message.seconds, MEMORY)

    def answer(question: bytes) -> bytes:
        reason = None
        with bounds.around(len(question)):
            try:
                try_out(compile_source(vocabulary, msgspec.msgpack.decode(question, type=str)))
            except Refused as refused:
                reason = str(refused)
        return msgspec.msgpack.encode(reason)

    return msgspec.msgpack.encode(None), answer


if __name__ == "__main__":
    detach()
    os.nice(NICENESS)
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=serve, args=(setup,))
    thread.start()
    thread.join()
