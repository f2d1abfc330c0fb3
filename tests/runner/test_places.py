"""How many places a key may hold: one alone nearly all, and never so many that there is none for the next."""

import contextlib

import pytest

from src.errors import InvalidValue, TooManyRequests
from src.protocol import Detokenize, Embed, Generate, TextPrompt
from src.runner.places import Places
from src.sampling import SamplingParams


class Held:
    """Places that keys hold till the end of the test."""

    def __init__(self, total: int) -> None:
        self.places = Places(total)
        self._stack = contextlib.ExitStack()

    def take(self, key: str, number: int = 1, **how: bool) -> bool:
        with contextlib.suppress(TooManyRequests):
            self._stack.enter_context(self.places.hold(key, number, **how))
            return True
        return False

    def most(self, key: str) -> int:
        """Takes one after another, as many as there are."""
        number = 0
        while self.take(key):
            number += 1
        return number


def text(n: int, prompts: int = 1) -> Generate:
    return Generate(prompts=[TextPrompt(text="a")] * prompts, n=n, sampling=SamplingParams(seed=1))


def test_a_key_alone_can_hold_all_but_the_reserve():
    assert Held(256).most("a") == 224
    assert Held(256).take("a", 224)
    assert not Held(256).take("a", 225)


@pytest.mark.parametrize("total", [1, 2, 7])
def test_where_there_are_few_places_there_is_no_reserve(total):
    assert Held(total).most("a") == total


def test_the_reserve_is_for_keys_that_hold_no_more_than_a_fair_share():
    held = Held(256)
    held.most("a")
    assert held.most("b") == 32
    assert held.places.taken == 256
    held = Held(256)
    held.most("a")
    assert held.take("b", 20)
    assert not held.take("a")
    assert held.take("c", 12)


def test_a_refusal_says_why_and_when_to_come_again():
    held = Held(256)
    held.take("a", 200)
    with pytest.raises(TooManyRequests, match=r"has 200 sequences .* the last 32 are for those that have no more than 128") as refused:
        held.places.hold("a", 25).__enter__()
    assert refused.value.retry_after >= 1


def test_no_more_than_all_places_are_taken_by_whomever():
    held = Held(16)
    assert all(held.take(str(key)) for key in range(16))
    assert not held.take("another")


def test_a_keys_places_are_given_back():
    places = Places(16)
    with pytest.raises(KeyError), places.hold("a", 14):
        raise KeyError
    assert places.taken == 0
    with places.hold("a", 14):
        assert places.taken == 14


def test_who_comes_back_after_a_crash_gets_what_it_held():
    held = Held(256)
    assert held.take("b", 32)
    assert not held.take("a", 200)
    assert held.take("a", 200, resumed=True)


def test_a_request_has_a_place_for_each_of_its_sequences():
    places = Places(256)
    assert places.wanted(text(3, prompts=4)) == 12
    assert places.wanted(Detokenize(tokens=[])) == 1
    assert [places.wanted(Embed(prompts=[TextPrompt(text="a")] * number)) for number in (1, 64, 65, 2048)] == [1, 1, 2, 32]
    assert Places(3).wanted(Embed(prompts=[TextPrompt(text="a")] * 2048)) == 3


def test_more_sequences_than_a_key_can_ever_hold_are_no_matter_of_waiting():
    with pytest.raises(InvalidValue, match="MAX_CONCURRENT_REQUESTS allows") as refused:
        Places(256).wanted(text(113, prompts=2))
    assert refused.value.param == "n"
    with pytest.raises(InvalidValue) as refused:
        Places(2).wanted(text(1, prompts=3))
    assert refused.value.param == "prompt"
