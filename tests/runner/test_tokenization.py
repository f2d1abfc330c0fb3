"""Counting tokens: in a thread of its own, whatever is asked of it."""

import asyncio
import threading

import pytest

from src.errors import InvalidValue
from src.protocol import Detokenize, TextPrompt, Tokenize
from src.runner import tokenization
from src.runner.prompts import Prompts
from src.runner.tokenization import Tokenization
from src.text.tokenizer.base import ByteTokenizer


class SlowTokenizer(ByteTokenizer):
    """Stops at the text "slow" until it may go on."""

    def __init__(self) -> None:
        self.at_it, self.go_on = threading.Event(), threading.Event()
        self.named = 0

    def encode(self, text: str, *, add_bos: bool) -> list[int]:
        if text == "slow":
            self.at_it.set()
            assert self.go_on.wait(10)
        return super().encode(text, add_bos=add_bos)

    def display_bytes(self, token: int) -> bytes:
        self.named += 1
        return super().display_bytes(token)


class Service:
    def __init__(self) -> None:
        self.tokenizer = SlowTokenizer()
        self.prompts = Prompts(self.tokenizer, None, 100, self.tokenizer.vocab_size)
        self.texts = Tokenization(self.tokenizer, self.prompts, 100)

    async def tokenize(self, text: str, key: str = "", **fields: bool) -> object:
        return await anext(self.texts.tokenize(Tokenize(prompt=TextPrompt(text=text), key=key, **fields)))

    def close(self) -> None:
        self.texts.close()
        self.prompts.close()


def test_long_texts_keep_no_prompt_and_no_other_key_waiting_but_for_one():
    async def main() -> None:
        service = Service()
        slow = [asyncio.ensure_future(service.tokenize("slow", "greedy")) for _ in range(20)]
        await asyncio.to_thread(service.tokenizer.at_it.wait)
        other = asyncio.ensure_future(service.tokenize("ab", "modest"))
        assert await asyncio.wait_for(service.prompts.encoded([TextPrompt(text="ab")], "modest"), 5) == [[97, 98]]
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 1), 5) == 1, "the loop's own threads are free"
        service.tokenizer.go_on.set()
        await other
        assert sum(task.done() for task in slow) < 10
        await asyncio.gather(*slow)
        service.close()

    asyncio.run(main())


def test_text_of_a_client_that_has_left_is_not_tokenized():
    async def main() -> None:
        service = Service()
        slow = asyncio.ensure_future(service.tokenize("slow"))
        await asyncio.to_thread(service.tokenizer.at_it.wait)
        left = asyncio.ensure_future(service.tokenize("left", names=True))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        service.tokenizer.go_on.set()
        await slow
        await anext(service.texts.detokenize(Detokenize(tokens=[97])))
        assert service.tokenizer.named == 1
        service.close()

    asyncio.run(main())


@pytest.mark.parametrize("names", [False, True])
def test_tokens_have_names_only_where_they_are_asked_for(names):
    service = Service()
    tokenized = asyncio.run(service.tokenize("ab", names=names))
    assert (tokenized.tokens, tokenized.names) == ([97, 98], ["a", "b"] if names else [])
    assert service.tokenizer.named == (2 if names else 0)
    service.close()


def test_what_is_listed_has_a_bound(monkeypatch):
    monkeypatch.setattr(tokenization, "MOST_TOKENS", 5)
    monkeypatch.setattr(tokenization, "MOST_BYTES", 5)

    async def main() -> None:
        service = Service()
        assert len((await service.tokenize("abcde")).tokens) == 5
        with pytest.raises(InvalidValue, match="has 6 tokens, but at most 5") as raised:
            await service.tokenize("abcdef")
        assert raised.value.param == "prompt"
        assert (await anext(service.texts.detokenize(Detokenize(tokens=[97] * 5)))).text == "aaaaa"
        with pytest.raises(InvalidValue, match="more than 5 bytes") as raised:
            await anext(service.texts.detokenize(Detokenize(tokens=[97] * 6)))
        assert raised.value.param == "tokens"
        service.close()

    asyncio.run(main())
