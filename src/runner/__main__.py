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
from collections.abc import Callable
from pathlib import Path

import msgspec
from loguru import logger

from src import logs
from src.engines import engine_options, load_engine, version
from src.engines.base import Engine
from src.errors import InternalError, ModelLoadFailed, ServiceError
from src.hf_folder import check_file, check_folder, read_template
from src.protocol import (
    DescribeTokenizer,
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
from src.protocol.launch import ENGINE_DEAD, NO_NUMBERS, RunnerSpec
from src.runner.embedder import Embedder
from src.runner.engine_loop import EngineLoop
from src.runner.generation import Generator
from src.runner.server import Answer, RunnerServer
from src.runner.tokenization import Tokenization
from src.sampling import SamplingParams
from src.settings import Settings
from src.text.grammar import Limits
from src.text.template import ChatTemplate
from src.text.tokenizer.base import ByteTokenizer, Tokenizer


def main() -> None:
    spec = msgspec.json.decode(sys.argv[1], type=RunnerSpec)
    settings = Settings.load()
    logs.configure(settings, "runner")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the master's to answer
    _end_with_the_manager()
    sys.exit(asyncio.run(_run(spec, settings, _take_stdout())))


async def _run(spec: RunnerSpec, settings: Settings, pipe: int) -> int:
    stopping = asyncio.Event()

    def report(message: Message) -> None:
        if isinstance(message, RunnerReady):  # until then, SIGTERM ends the process at once
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        with contextlib.suppress(BrokenPipeError):
            os.write(pipe, encode(message))

    return await serve(spec, settings, report, stopping)


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


async def serve(spec: RunnerSpec, settings: Settings, report: Callable[[Message], None], stopping: asyncio.Event) -> int:
    """Load the model and answer on its socket until `stopping` is set. Returns the process's exit status."""
    began = time.monotonic()
    options = engine_options(spec.engine, spec.options)
    loop = EngineLoop(
        lambda: load_engine(spec.engine, options), on_death=lambda: os._exit(ENGINE_DEAD), on_no_numbers=lambda: os._exit(NO_NUMBERS)
    )
    try:
        await asyncio.to_thread(_check_files, spec, options.model_path, settings)
        engine = await loop.start()
        tokenizer = await asyncio.to_thread(_tokenizer, options.model_path)
        template = _template(spec, tokenizer, settings.template_seconds)
        tool_template = _tool_template(spec, tokenizer, settings.template_seconds) if template else None
        generator = Generator(
            loop,
            engine,
            tokenizer,
            template,
            tool_template=tool_template,
            tool_format=spec.tool_format,
            grammar_limits=_grammar_limits(settings),
            max_prompt_tokens=settings.max_prompt_tokens,
            queue_timeout=settings.queue_timeout,
            strict=settings.strict_fields,
        )
        embedder = Embedder(loop, generator.prompts, engine.embedding_length, spec.matryoshka)
        report(RunnerLoading(stage="warming_up"))
        await (_answer_canary(generator) if "generation" in engine.features else _embed_canary(embedder))
    except ServiceError as error:
        report(Failed.of(error))
        return 1
    except Exception as error:
        logger.exception("The model did not load")
        report(Failed.of(InternalError(f"{type(error).__name__}: {error}")))
        return 1
    texts = Tokenization(tokenizer, generator.prompts, engine.context_length)
    answers: dict[type[Message], Answer] = {
        Generate: generator.generate,
        Embed: embedder.embed,
        Tokenize: texts.tokenize,
        Detokenize: texts.detokenize,
        DescribeTokenizer: texts.describe,
    }
    server = RunnerServer(loop, answers, spec.max_requests, on_first_answer=lambda: report(RunnerServed()))
    await server.bind(spec.socket)
    report(_ready(spec, engine, time.monotonic() - began))
    await stopping.wait()
    await server.drain()
    loop.close()
    generator.close()
    texts.close()
    for one in (template, tool_template):
        if one:
            one.close()
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
        kv_cache=engine.kv_cache,
    )


def _grammar_limits(settings: Settings) -> Limits:
    return Limits(settings.max_grammar_bytes, settings.max_grammar_depth, settings.grammar_compile_seconds, settings.max_grammar_properties)


def _check_files(spec: RunnerSpec, model_path: str, settings: Settings) -> None:
    """Before any library reads them: none leads to files that are not the model's. Raises ModelLoadFailed."""
    models_dir = settings.models_path
    folders = [model_path, *spec.options.get("lora", ()), *spec.options.get("adapters", {}).values(), *_draft(spec)]
    for folder in filter(os.path.isdir, folders):
        check_folder(Path(folder), next((each for each in settings.models_paths if Path(folder).is_relative_to(each)), models_dir))
    if spec.chat_template and (path := Path(spec.chat_template)).is_relative_to(models_dir):
        check_file(path, models_dir / path.relative_to(models_dir).parts[0], models_dir)


def _draft(spec: RunnerSpec) -> list[str]:
    """The draft model of speculative decoding, and what else is named there, as vLLM would find it: a folder, or a name of a hub."""
    config = spec.options.get("vllm", {}).get("speculative_config") or {}
    return [value for value in config.values() if isinstance(value, str)]


def _tokenizer(model_path: str) -> Tokenizer:
    if not model_path:  # a model without files
        return ByteTokenizer()
    if os.path.isdir(model_path):
        from src.text.tokenizer.hf import HFTokenizer

        return HFTokenizer(model_path)
    from src.text.tokenizer.gguf import GGUFTokenizer

    return GGUFTokenizer(model_path)


def _template(spec: RunnerSpec, tokenizer: Tokenizer, seconds: float) -> ChatTemplate | None:
    source = read_template(Path(spec.chat_template)) if spec.chat_template else tokenizer.chat_template
    if source is None and spec.chat_template:
        raise ModelLoadFailed("the chat template that models.toml names is no file any more")
    return None if source is None else _compiled(source, tokenizer, seconds)


def _tool_template(spec: RunnerSpec, tokenizer: Tokenizer, seconds: float) -> ChatTemplate | None:
    """The model's own for requests with tools. One that is wrong does not keep the model from chats."""
    if spec.chat_template or tokenizer.tool_template is None:
        return None
    try:
        return _compiled(tokenizer.tool_template, tokenizer, seconds)
    except ServiceError as error:
        logger.warning("The model's second template, for requests with tools, is not used: {}", error)
        return None


def _compiled(source: str, tokenizer: Tokenizer, seconds: float) -> ChatTemplate:
    return ChatTemplate(
        source,
        bos_text=tokenizer.bos_text,
        eos_text=tokenizer.eos_text,
        special_texts=tokenizer.special_texts,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
