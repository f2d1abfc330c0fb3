"""Asks a server as a client does, and keeps all that came back."""

from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import openai

from tests.support.server import Server


class Answer(msgspec.Struct):
    """`error`: the code of the one it ended with. Lists and texts are by choice."""

    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    logprobs: dict[int, list] = {}
    usage: tuple[int, int] | None = None
    error: str | None = None
    message: str = ""

    @property
    def text(self) -> str:
        return self.texts.get(0, "")


def ask(server: Server, prompt: str, *, model: str = "echo", on_text=None, **fields: object) -> Answer:
    """A streamed chat; what the OpenAI client does not know goes into extra_body."""
    answer = Answer(texts=defaultdict(str), logprobs=defaultdict(list))
    try:
        stream = server.client().chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            stream=True,
            stream_options={"include_usage": True},
            **fields,
        )
        for chunk in stream:
            for choice in chunk.choices:
                answer.texts[choice.index] += choice.delta.content or ""
                if choice.logprobs:
                    answer.logprobs[choice.index] += [(entry.token, entry.logprob) for entry in choice.logprobs.content]
                if choice.finish_reason:
                    answer.reasons[choice.index] = choice.finish_reason
                if on_text and choice.delta.content:
                    on_text()
            if chunk.usage:
                answer.usage = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
    except openai.APIError as error:
        answer.error, answer.message = str(error.code), error.message
    return answer


def ask_whole(server: Server, prompt: str, *, model: str = "echo", **fields: object) -> Answer:
    """A chat that is not streamed."""
    try:
        whole = server.client().chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}], **fields)
    except openai.APIError as error:
        return Answer(error=str(error.code), message=error.message)
    return Answer(
        texts={choice.index: choice.message.content for choice in whole.choices},
        reasons={choice.index: choice.finish_reason for choice in whole.choices},
        usage=(whole.usage.prompt_tokens, whole.usage.completion_tokens),
    )


class Crowd:
    """Many who ask at the same time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(64)

    def ask(self, *args: object, whole: bool = False, **fields: object) -> "Future[Answer]":
        return self._pool.submit(ask_whole if whole else ask, *args, **fields)

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown()
