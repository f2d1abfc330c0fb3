"""The machines from bytes to shown text: splitting their input must change nothing, and nothing is held back without need."""

import itertools
import random
import time

import pytest

from src.text.output.decode import StopMachine, Utf8Decoder

TEXT = "naïve 中文，标点。👩‍👩‍👧 flag 🇩🇪 \U0010ffff end"
STOPS = [["END"], ["\n\n", "\nUser:"], ["aab", "ab", "b"], ["abcd", "bc"], ["aaa"], ["aabaa", "abab", "ba"], ["停止", "止。"], []]


def pushed(machine, parts) -> str:
    return "".join([*map(machine.push, parts), machine.flush()])


def cut(whole, places):
    return [whole[start:end] for start, end in itertools.pairwise([0, *places, len(whole)])]


def two_cuts(whole):
    return (cut(whole, places) for places in itertools.combinations_with_replacement(range(len(whole) + 1), 2))


def naive_stop(text: str, stops: list[str]) -> tuple[str, bool]:
    """Reads a character more at a time, and all of it each time."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


def naive_held(text: str, stops: list[str]) -> int:
    return max((size for stop in stops for size in range(len(stop)) if text.endswith(stop[:size])), default=0)


def test_characters_come_out_whole_wherever_the_bytes_are_split():
    for parts in two_cuts(TEXT.encode()):
        assert pushed(Utf8Decoder(), parts) == TEXT


def test_characters_come_out_whole_byte_by_byte():
    data = TEXT.encode()
    decoder = Utf8Decoder()
    shown = ""
    for end in range(len(data)):
        shown += decoder.push(data[end : end + 1])
        assert shown == data[: end + 1].decode(errors="ignore"), "a complete character was held back"


def test_invalid_bytes_become_the_same_replacement_characters_wherever_they_are_split():
    data = b"a\xff\xf0\x9f\x98b\xe4\xb8\xed\xa0\x80\xc0\xafz\xf0\x9f\x98\x80"
    expected = data.decode(errors="replace")
    assert "\ufffd" in expected
    for parts in two_cuts(data):
        assert pushed(Utf8Decoder(), parts) == expected


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_character_cut_by_the_end_is_dropped(size):
    assert pushed(Utf8Decoder(), [b"ok", "😀".encode()[:size]]) == "ok"


def test_a_decoder_starts_afresh_after_a_flush():
    decoder = Utf8Decoder()
    assert pushed(decoder, [b"\xf0\x9f"]) == ""
    assert pushed(decoder, [b"a"]) == "a"


@pytest.mark.parametrize("stops", STOPS, ids=str)
def test_a_text_stops_where_the_naive_search_stops_it_however_it_is_split(stops):
    rng = random.Random(str(stops))
    alphabet = sorted({*"".join(stops), "x"})
    for _ in range(150):
        text = "".join(rng.choices(alphabet, k=12))
        expected, stopped = naive_stop(text, stops)
        for parts in two_cuts(text):
            machine = StopMachine(stops)
            assert pushed(machine, parts) == expected
            assert machine.stopped == stopped


@pytest.mark.parametrize("stops", STOPS, ids=str)
def test_no_more_is_held_back_than_could_begin_a_stop(stops):
    rng = random.Random(str(stops))
    alphabet = sorted({*"".join(stops), "x"})
    for _ in range(300):
        machine = StopMachine(stops)
        text = shown = ""
        while not machine.stopped and len(text) < 20:
            part = "".join(rng.choices(alphabet, k=rng.randint(0, 3)))
            text += part
            shown += machine.push(part)
            if not machine.stopped:
                assert shown == text[: len(text) - naive_held(text, stops)]


def test_nothing_comes_after_a_stop():
    machine = StopMachine(["END"])
    assert machine.push("so EN") == "so "
    assert machine.push("D and on") == ""
    assert machine.stopped
    assert machine.push("more") == ""
    assert machine.flush() == ""


def test_the_stop_complete_first_wins_whatever_their_order():
    for stops in (["abcd", "bc"], ["bc", "abcd"]):
        assert pushed(StopMachine(stops), ["xabcd"]) == "xa"


def test_of_stops_that_end_together_the_longest_wins():
    for stops in (["abc", "c"], ["c", "abc"]):
        assert pushed(StopMachine(stops), ["xabc"]) == "x"


def test_a_stop_that_does_not_come_is_shown_by_the_flush():
    machine = StopMachine(["###"])
    assert machine.push("a ##") == "a "
    assert machine.flush() == "##"
    assert not machine.stopped


def test_a_long_text_that_nearly_stops_all_the_time_is_not_scanned_again_and_again():
    machine = StopMachine(["a" * 5000 + "b"])
    started = time.perf_counter()
    shown = pushed(machine, ["aaaa"] * 10_000)
    assert len(shown) == 40_000
    assert time.perf_counter() - started < 5  # takes 0.05; scanning what is held at each push would take minutes
