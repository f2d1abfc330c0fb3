"""Prompts become tokens, those around a gap too, or an error that names the field."""

import pytest

from src.errors import ContextLengthExceeded, InvalidValue, UnsupportedField
from src.protocol import ChatPrompt, TextPrompt, TokenPrompt
from src.runner.prompts import Prompts
from src.text.tokenizer.base import ByteTokenizer

CONTEXT = 20


class GapTokenizer(ByteTokenizer):
    vocab_size = 261
    bos_token = 257
    bos_text = "<s>"
    fim_tokens = (258, 259, 260)


def prompts(tokenizer: ByteTokenizer) -> Prompts:
    return Prompts(tokenizer, None, CONTEXT, tokenizer.vocab_size)


def test_a_gap_is_shown_as_prefix_suffix_and_what_comes_between():
    assert prompts(GapTokenizer()).encode(TextPrompt(text="ab", suffix="c")) == [257, 258, *b"ab", 259, *b"c", 260]


def test_before_a_gap_there_may_be_nothing():
    assert prompts(GapTokenizer()).encode(TextPrompt(text="", suffix="c")) == [257, 258, 259, *b"c", 260]


def test_a_model_without_such_tokens_refuses_a_suffix():
    with pytest.raises(UnsupportedField) as raised:
        prompts(ByteTokenizer()).encode(TextPrompt(text="ab", suffix="c"))
    assert raised.value.param == "suffix"


def test_a_gap_with_all_around_it_has_to_fit():
    prompts(GapTokenizer()).encode(TextPrompt(text="x" * 10, suffix="y" * 5))
    for text, suffix in (("x" * 10, "y" * 6), ("x", "y" * 1000)):
        with pytest.raises(ContextLengthExceeded):
            prompts(GapTokenizer()).encode(TextPrompt(text=text, suffix=suffix))


def test_an_input_to_embed_may_fill_the_context_and_a_prompt_may_not():
    assert len(prompts(ByteTokenizer()).encode_input(TextPrompt(text="x" * CONTEXT))) == CONTEXT
    with pytest.raises(ContextLengthExceeded) as raised:
        prompts(ByteTokenizer()).encode(TextPrompt(text="x" * CONTEXT))
    assert raised.value.param == "prompt"
    with pytest.raises(ContextLengthExceeded) as raised:
        prompts(ByteTokenizer()).encode_input(TokenPrompt(tokens=[1] * (CONTEXT + 1)))
    assert raised.value.param == "input"
    assert "completion" not in raised.value.message


def test_what_is_empty_or_outside_the_vocabulary_is_refused():
    for prompt in (TextPrompt(text=""), TokenPrompt(tokens=[257])):
        with pytest.raises(InvalidValue):
            prompts(ByteTokenizer()).encode_input(prompt)


def test_a_model_without_a_chat_template_refuses_messages():
    with pytest.raises(UnsupportedField, match="no chat template"):
        prompts(ByteTokenizer()).encode(ChatPrompt(messages=[{"role": "user", "content": "x"}]))


class ClosingTokenizer(GapTokenizer):
    embedding_end_token = 256


def test_a_text_to_embed_ends_as_the_model_was_trained_and_no_other_does():
    of = prompts(ClosingTokenizer())
    assert of.encode_input(TextPrompt(text="ab")) == [257, *b"ab", 256]
    assert of.encode_input(TextPrompt(text="ab<|end|>")) == [257, *b"ab", 256]
    assert of.encode_input(TokenPrompt(tokens=[97, 98])) == [97, 98]
    assert of.encode(TextPrompt(text="ab")) == [257, *b"ab"]
    with pytest.raises(ContextLengthExceeded):
        of.encode_input(TextPrompt(text="x" * (CONTEXT - 1)))


def test_a_chat_is_refused_by_the_size_of_all_its_messages_before_it_is_rendered():
    """There is no template that could render it."""
    messages = [{"role": "user", "content": "x" * CONTEXT * 8}] * 3
    with pytest.raises(ContextLengthExceeded, match="more than 20 tokens"):
        prompts(ByteTokenizer()).encode(ChatPrompt(messages=messages))


def test_the_arguments_of_calls_count_too():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "x" * CONTEXT * 8}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call] * 3}]
    with pytest.raises(ContextLengthExceeded, match="more than 20 tokens"):
        prompts(ByteTokenizer()).encode(ChatPrompt(messages=messages))
