"""`python -m src.runner SPEC`: loads one model, prints RunnerReady or Failed, serves its socket until told to stop.

SPEC is a RunnerSpec as JSON. Standard input is the manager's pipe: its end means that the manager is gone.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec
from loguru import logger

from src import logs
from src.engines import load_engine, version
from src.engines.base import Engine
from src.errors import InternalError, ModelLoadFailed, ServiceError
from src.protocol import (
    Detokenize,
    Embed,
    Failed,
    Finished,
    Generate,
    Message,
    RunnerLoading,
    RunnerReady,
    RunnerServed,
    TextPrompt,
    Tokenize,
    encode,
)
from src.runner.embedder import Embedder
from src.runner.generation import Generator
from src.runner.loop import EngineLoop
from src.runner.server import Answer, RunnerServer
from src.runner.texts import Texts
from src.sampling import SamplingParams
from src.settings import Settings
from src.spec import RunnerSpec
from src.text.grammar import Limits
from src.text.template import ChatTemplate
from src.text.tokenizer import ByteTokenizer, Tokenizer

ENGINE_DEAD = 70  # exit status, for the manager's log; EX_SOFTWARE of sysexits.h


def main() -> None:
    spec = msgspec.json.decode(sys.argv[1], type=RunnerSpec)
    settings = Settings.load()
    logs.configure(settings, "runner")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the master's to answer
    _end_with_the_manager()
    report = _take_stdout()
    sys.exit(asyncio.run(_serve(spec, settings, report)))


def _take_stdout() -> int:
    """The pipe to the manager, out of reach of libraries that print: their output goes to standard error."""
    report = os.dup(1)
    os.dup2(2, 1)
    return report


def _end_with_the_manager() -> None:
    """Never outlive the manager: by the end of its pipe, and on Linux by the kernel, even if this process hangs."""

    def watch() -> None:
        # Not sys.stdin: its lock would make the interpreter's shutdown abort while this thread holds it.
        while os.read(0, 1024):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


async def _serve(spec: RunnerSpec, settings: Settings, report: int) -> int:
    began = time.monotonic()
    loop = EngineLoop(lambda: load_engine(spec.engine, spec.options), on_death=lambda: os._exit(ENGINE_DEAD))
    try:
        engine = await loop.start()
        tokenizer = await asyncio.to_thread(_tokenizer, spec)
        template = _template(spec, tokenizer, settings.template_seconds)
        generator = Generator(
            loop,
            tokenizer,
            template,
            engine.context_length,
            _grammar_limits(settings),
            spec.tool_format,
            settings.max_prompt_tokens,
            settings.queue_timeout,
            writes=engine.generates,
        )
        embedder = Embedder(loop, generator.prompts, engine.embedding_length, spec.matryoshka)
        _tell(report, RunnerLoading(stage="warming_up"))
        await (_answer_canary(generator) if engine.generates else _embed_canary(embedder))
    except ServiceError as error:
        _tell(report, Failed.of(error))
        return 1
    except Exception as error:
        logger.exception("The model did not load")
        _tell(report, Failed.of(InternalError(f"{type(error).__name__}: {error}")))
        return 1
    draining = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, draining.set)
    texts = Texts(tokenizer, generator.prompts, engine.context_length)
    answers: dict[type[Message], Answer] = {
        Generate: generator.generate,
        Embed: embedder.embed,
        Tokenize: texts.tokenize,
        Detokenize: texts.detokenize,
    }
    server = RunnerServer(loop, answers, spec.max_requests, on_first_answer=lambda: _tell(report, RunnerServed()))
    await server.bind(spec.socket)
    _tell(report, _ready(spec, engine, time.monotonic() - began))
    await draining.wait()
    await server.drain()
    loop.close()
    generator.close()
    if template:
        template.close()
    tokenizer.close()
    return 0


async def _answer_canary(generator: Generator) -> None:
    """One token on the path of every request: a model that cannot draw it is not ready. Raises ModelLoadFailed, ServiceError."""
    request = Generate(prompts=[TextPrompt(text="Hello")], sampling=SamplingParams(seed=0, temperature=0, ignore_eos=True), max_tokens=1)
    async for event in generator.generate(request):
        if isinstance(event, Finished) and event.completion_tokens == 1:
            return
    raise ModelLoadFailed("it was loaded, but did not answer a first prompt")


async def _embed_canary(embedder: Embedder) -> None:
    """The same for a model that can do nothing else. Raises ServiceError."""
    async for _ in embedder.embed(Embed(prompts=[TextPrompt(text="Hello")])):
        pass


def _ready(spec: RunnerSpec, engine: Engine, seconds: float) -> RunnerReady:
    return RunnerReady(
        context_length=engine.context_length,
        device=engine.device,
        engine_version=version(spec.engine),
        load_seconds=round(seconds, 2),
        embedding_length=engine.embedding_length,
    )


def _grammar_limits(settings: Settings) -> Limits:
    return Limits(settings.max_grammar_bytes, settings.max_grammar_depth, settings.grammar_compile_seconds, settings.max_grammar_properties)


def _tell(report: int, message: Message) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(report, encode(message))


def _tokenizer(spec: RunnerSpec) -> Tokenizer:
    if spec.engine == "echo":
        return ByteTokenizer()
    if os.path.isdir(spec.options.model_path):
        from src.text.hf import HFTokenizer

        return HFTokenizer(spec.options.model_path)
    from src.text.gguf import GGUFTokenizer

    return GGUFTokenizer(spec.options.model_path)


def _template(spec: RunnerSpec, tokenizer: Tokenizer, seconds: float) -> ChatTemplate | None:
    source = Path(spec.chat_template).read_text(encoding="utf-8") if spec.chat_template else tokenizer.chat_template
    if source is None:
        return None
    return ChatTemplate(
        source,
        bos_text=tokenizer.bos_text,
        eos_text=tokenizer.eos_text,
        special_texts=tokenizer.special_texts,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
