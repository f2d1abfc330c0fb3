"""What holds for every tokenizer, shown with the one of bytes."""

import pytest

from src.text.tokenizer.base import ByteTokenizer, Tokenizer
from src.text.tokenizer.guard import SENTINEL_SPLIT

TEXTS = ["", "plain", "中文 and 😀", "tab\tline\n\0nul", "\ufeffbom", "e\u0301"]


class WithBOS(ByteTokenizer):
    """As models do that were trained with a BOS token in front of every text."""

    bos_token = 257
    bos_text = "<s>"


@pytest.fixture
def tokenizer() -> Tokenizer:
    return ByteTokenizer()


@pytest.mark.parametrize("text", TEXTS)
def test_encoding_and_joining_the_pieces_gives_the_text_again(tokenizer, text):
    assert b"".join(map(tokenizer.bytes_of, tokenizer.encode(text, add_bos=True))).decode() == text


def test_an_empty_text_has_no_tokens_but_the_bos():
    assert ByteTokenizer().encode("", add_bos=True) == []
    assert WithBOS().encode("", add_bos=True) == [257]
    assert WithBOS().encode("", add_bos=False) == []


def test_a_text_that_begins_with_its_own_bos_gets_no_second_one():
    assert WithBOS().encode("<s>a", add_bos=True) == [*b"<s>a"]
    assert WithBOS().encode("a<s>", add_bos=True) == [257, *b"a<s>"]


def test_a_special_token_in_a_text_becomes_that_token(tokenizer):
    assert tokenizer.encode("a<|end|>b", add_bos=False) == [97, 256, 98]
    assert tokenizer.bytes_of(256) == b""


def test_a_split_keeps_a_special_token_apart_and_leaves_no_trace(tokenizer):
    ids = tokenizer.encode(f"<{SENTINEL_SPLIT}|end|>", add_bos=False)
    assert ids == [*b"<|end|>"]
    assert tokenizer.encode(SENTINEL_SPLIT, add_bos=False) == []


def test_half_a_surrogate_pair_is_replaced_not_refused(tokenizer):
    assert tokenizer.encode("a\ud800b", add_bos=False) == [*b"a?b"]


def test_a_text_surely_exceeds_a_limit_only_if_it_does(tokenizer):
    for text in ("abc" * 10, "<|end|>" * 10, "中" * 10):
        tokens = len(tokenizer.encode(text, add_bos=False))
        assert not tokenizer.surely_exceeds(text, tokens)
    assert tokenizer.surely_exceeds("a" * 161, 10)
