"""Logprobs: of chat and of text completions, held against the answer's bytes and against each other."""

import codecs
import math

import pytest

from tests.conformance.api import CHAT, COMPLETIONS

pytestmark = pytest.mark.feature("logprobs")


def text_of(spelled: bytes) -> str:
    """A character that the answer's end cut in half is no part of the text."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(spelled)


def entries(answer: dict) -> list[dict]:
    return answer["choices"][0]["logprobs"]["content"]


def test_there_is_an_entry_for_every_token(either):
    answer = either.chat(logprobs=True, ignore_eos=True)
    assert len(entries(answer)) == answer["usage"]["completion_tokens"]


def test_entries_have_the_keys_of_openais_api(either):
    answer = either.chat(logprobs=True, top_logprobs=2)
    assert set(answer["choices"][0]["logprobs"]) <= {"content", "refusal"}
    for entry in entries(answer):
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert all(set(top) == {"token", "logprob", "bytes"} for top in entry["top_logprobs"])


def test_the_bytes_of_all_tokens_are_the_answer(either):
    answer = either.chat("Write: 你好, 世界 🌍", logprobs=True, max_tokens=30)
    spelled = b"".join(bytes(entry["bytes"]) for entry in entries(answer))
    assert text_of(spelled) == answer["choices"][0]["message"]["content"]


def test_a_tokens_text_is_what_its_bytes_say(either):
    for entry in entries(either.chat("Write: 你好, 世界 🌍", logprobs=True, top_logprobs=3)):
        for one in [entry, *entry["top_logprobs"]]:
            assert bytes(one["bytes"]).decode(errors="replace") == one["token"]


def test_logprobs_are_logarithms_of_probabilities(either):
    for entry in entries(either.chat(logprobs=True, top_logprobs=20)):
        assert all(one["logprob"] <= 1e-6 for one in [entry, *entry["top_logprobs"]])
        assert sum(math.exp(top["logprob"]) for top in entry["top_logprobs"]) <= 1 + 1e-3


@pytest.mark.parametrize("count", [1, 5, 20])
def test_as_many_of_the_likeliest_are_told_as_were_asked_for_in_order(either, count):
    for entry in entries(either.chat(logprobs=True, top_logprobs=count, max_tokens=6)):
        told = [top["logprob"] for top in entry["top_logprobs"]]
        assert len(told) == count
        assert told == sorted(told, reverse=True)


@pytest.mark.parametrize("fields", [{}, {"top_logprobs": 0}], ids=["left out", "zero"])
def test_without_top_logprobs_there_are_none(either, fields):
    assert all(entry["top_logprobs"] == [] for entry in entries(either.chat(logprobs=True, **fields)))


def test_at_temperature_zero_the_drawn_token_is_the_likeliest(either):
    for entry in entries(either.chat(logprobs=True, top_logprobs=1)):
        assert entry["logprob"] == pytest.approx(entry["top_logprobs"][0]["logprob"], abs=1e-3)


def test_logprobs_are_the_models_own_whatever_the_temperature(either):
    def likeliest(temperature: float) -> list[float]:
        answer = either.chat(logprobs=True, top_logprobs=3, temperature=temperature, seed=1, max_tokens=1)
        return [top["logprob"] for top in entries(answer)[0]["top_logprobs"]]

    assert likeliest(1.7) == pytest.approx(likeliest(0), abs=1e-2)


def test_what_a_stop_string_cut_off_has_no_entries(either):
    text = either.chat(max_tokens=32, ignore_eos=True)["choices"][0]["message"]["content"]
    stop = text[9:14]
    answer = either.chat(max_tokens=32, ignore_eos=True, logprobs=True, stop=[stop])
    spelled = b"".join(bytes(entry["bytes"]) for entry in entries(answer)).decode(errors="replace")
    said = answer["choices"][0]["message"].get("content") or ""
    assert spelled.startswith(said)
    assert stop not in spelled[: len(said)]
    assert len(spelled) - len(said) < 24  # the token that the stop string began in


def test_logprobs_are_not_told_unasked(either):
    assert either.chat(logprobs=False)["choices"][0]["logprobs"] is None
    assert either.complete()["choices"][0]["logprobs"] is None


def test_a_stream_carries_each_entry_with_the_text_it_belongs_to(api):
    body = {"messages": [{"role": "user", "content": "Hello."}], "temperature": 0, "max_tokens": 12, "logprobs": True}
    text, spelled = "", b""
    for chunk in api.stream(CHAT, body).chunks:
        choice = chunk["choices"][0]
        text += choice["delta"].get("content") or ""
        for entry in (choice["logprobs"] or {}).get("content") or []:
            spelled += bytes(entry["bytes"])
    assert text_of(spelled) == text


@pytest.mark.parametrize("count", [0, 1, 5])
def test_text_completions_have_the_lists_of_the_older_form(either, count):
    answer = either.complete(logprobs=count, ignore_eos=True)
    lists = answer["choices"][0]["logprobs"]
    tokens = answer["usage"]["completion_tokens"]
    assert len(lists["tokens"]) == len(lists["token_logprobs"]) == len(lists["text_offset"]) == tokens
    assert all(value <= 1e-6 for value in lists["token_logprobs"])
    assert len(lists["top_logprobs"]) == tokens if count else not any(lists["top_logprobs"] or [])
    assert lists["text_offset"] == sorted(lists["text_offset"])
    assert lists["text_offset"][0] == 0


def test_both_forms_say_the_same_of_the_same_prompt(either):
    prompt = [72, 101, 108, 108, 111]
    one, five = (either.complete(prompt, logprobs=count, max_tokens=8, ignore_eos=True) for count in (1, 5))
    assert one["choices"][0]["logprobs"]["tokens"] == five["choices"][0]["logprobs"]["tokens"]
    pairs = zip(one["choices"][0]["logprobs"]["token_logprobs"], five["choices"][0]["logprobs"]["token_logprobs"], strict=True)
    assert all(left == pytest.approx(right, abs=1e-2) for left, right in pairs)


def test_offsets_are_where_the_tokens_stand_in_the_text(either):
    choice = either.complete("abc", logprobs=1, ignore_eos=True)["choices"][0]
    for token, offset in zip(choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"], strict=True):
        if not token.startswith("bytes:"):  # a part of a character
            assert choice["text"][offset : offset + len(token)] == token


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (CHAT, {"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        (CHAT, {"top_logprobs": 2}, "top_logprobs"),
        (CHAT, {"logprobs": 2}, "logprobs"),
        (COMPLETIONS, {"logprobs": 6}, "logprobs"),
        (COMPLETIONS, {"logprobs": -1}, "logprobs"),
        (COMPLETIONS, {"logprobs": True}, "logprobs"),
        (COMPLETIONS, {"logprobs": 1, "echo": True}, "echo"),
    ],
)
def test_what_cannot_be_told_is_refused(api, path, fields, param):
    prompt = {"messages": [{"role": "user", "content": "a"}]} if path == CHAT else {"prompt": "a"}
    api.refuse(path, {**prompt, **fields}, 400, "invalid_value", param)
