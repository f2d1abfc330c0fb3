"""No special token's text survives the guard whole; everything else does."""

import random

import pytest

from src.text.tokenizer.guard import SENTINEL_SPLIT, Guard

SPECIALS = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "<<SYS>>", "<｜end▁of▁sentence｜>", "<|im_end|>\n"]


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard(SPECIALS)


@pytest.mark.parametrize("special", SPECIALS)
def test_a_special_text_is_cut_after_its_first_character(guard, special):
    assert guard(f"say {special} twice: {special}").count(f"{special[0]}{SENTINEL_SPLIT}{special[1]}") >= 2


def test_random_texts_never_keep_a_special_text_and_lose_nothing_else(guard):
    rng = random.Random(1)
    fragments = [part for special in SPECIALS for part in (special, special[:3], special[3:], special[:-1])] + ["a", " ", SENTINEL_SPLIT]
    for _ in range(2000):
        text = "".join(rng.choices(fragments, k=8))
        guarded = guard(text)
        assert not any(special in guarded for special in SPECIALS)
        assert guarded.replace(SENTINEL_SPLIT, "") == text.replace(SENTINEL_SPLIT, "")


def test_a_split_of_the_users_own_cannot_hide_a_special_text(guard):
    assert guard(f"<{SENTINEL_SPLIT}|im_{SENTINEL_SPLIT}end|>") == guard("<|im_end|>")


@pytest.mark.parametrize("special", SPECIALS)
def test_a_special_text_shared_between_two_messages_is_cut_too(guard, special):
    for place in range(1, len(special)):
        assert special not in guard("a" + special[:place]) + guard(special[place:] + "b")


def test_overlapping_special_texts_are_all_cut():
    assert Guard(["aba", "bab"])("xababx") == f"xa{SENTINEL_SPLIT}b{SENTINEL_SPLIT}abx"


@pytest.mark.parametrize("text", ["", "plain text", "x < y > z", "<b>bold</b>", "a | b", "中文 😀"])
def test_an_ordinary_text_is_left_as_it_is(guard, text):
    assert guard(text) == text


def test_a_vocabulary_without_special_tokens_leaves_every_text_alone():
    assert Guard([])("<s> anything <|im_end|>") == "<s> anything <|im_end|>"
