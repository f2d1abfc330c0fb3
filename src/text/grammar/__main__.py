"""`python -m src.text.grammar`: the process of trial.py. Ends with the runner, whose pipe is its standard input."""

import contextlib
import os
import resource
import signal
import sys
import threading
from pathlib import Path

import msgspec

from src.text.grammar.matcher import Refused, compile_source, try_out
from src.text.grammar.vocabulary import Vocabulary
from src.text.pipe import receive, send

STACK_BYTES = 1 << 20  # less than the runner's threads have, so that what passes here passes there
MEMORY_BYTES = 1 << 30  # more than it has with the vocabulary
ORPHAN_SECONDS = 60  # of processor time: should the runner die while this is at work, nobody else would end it
NICENESS = 5  # the streams of others come first


def main() -> None:
    """A vocabulary, then sources, each answered by None or by why it is refused."""
    with contextlib.suppress(EOFError):  # the runner is gone
        received = msgspec.msgpack.decode(receive(0), type=Vocabulary)
        # Without the model's own way to cut a text into tokens; where the next bytes are certain, llguidance wants some.
        vocabulary = received.prepare(received.prepare(lambda text: []).greedy_tokenize)
        send(1, msgspec.msgpack.encode(None))
        _limit_memory()
        while True:
            source = msgspec.msgpack.decode(receive(0), type=str)
            _limit_time()
            try:
                try_out(compile_source(vocabulary, source))
            except Refused as refused:
                send(1, msgspec.msgpack.encode(str(refused)))
            else:
                send(1, msgspec.msgpack.encode(None))


def _limit_memory() -> None:
    if sys.platform == "linux":  # elsewhere the kernel does not hold it
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _limit_time() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + ORPHAN_SECONDS, hard))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
