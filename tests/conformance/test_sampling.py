"""Which token is drawn: biases, seeds, and the bounds that leave one candidate."""

from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.feature("sampling")

HOT = {"temperature": 1.5, "ignore_eos": True, "max_tokens": 24}


def said(answer: dict) -> str:
    return answer["choices"][0]["message"].get("content") or ""


@pytest.mark.feature("logit_bias")
def test_a_bias_of_a_hundred_makes_a_token_the_only_one(either):
    answer = either.chat(logit_bias={"65": 100}, max_tokens=6, ignore_eos=True, logprobs=True)
    tokens = [entry["bytes"] for entry in answer["choices"][0]["logprobs"]["content"]]
    assert len(tokens) == 6
    assert all(token == tokens[0] for token in tokens)


@pytest.mark.feature("logit_bias")
def test_another_token_gives_another_text(either):
    texts = {said(either.chat(logit_bias={str(token): 100}, max_tokens=3, ignore_eos=True)) for token in (65, 66, 67)}
    assert len(texts) == 3


@pytest.mark.feature("logit_bias")
def test_a_bias_of_minus_a_hundred_forbids_a_token(either):
    forced = {"65": 100}
    letter = said(either.chat(logit_bias=forced, max_tokens=1, ignore_eos=True))
    # Of two that are wished for, the one that is forbidden as well does not come.
    text = said(either.chat(logit_bias={"65": -100, "66": 60}, max_tokens=6, ignore_eos=True))
    assert letter not in text


@pytest.mark.feature("logit_bias")
def test_text_completions_take_biases_too(either):
    text = either.complete(logit_bias={"66": 100}, max_tokens=4, ignore_eos=True)["choices"][0]["text"]
    assert text
    assert text == text[: len(text) // 4] * 4


@pytest.mark.feature("seed")
@pytest.mark.parametrize("seed", [0, 1, -5, 2**63 - 1, -(2**63)])
def test_the_same_seed_gives_the_same_answer(either, seed):
    assert either.chat(**HOT, seed=seed)["choices"] == either.chat(**HOT, seed=seed)["choices"]


@pytest.mark.feature("seed")
@pytest.mark.drawn
def test_different_seeds_give_different_answers(either):
    texts = {said(either.chat(**HOT, seed=seed)) for seed in range(4)}
    assert len(texts) > 1


@pytest.mark.feature("seed")
@pytest.mark.drawn
def test_without_a_seed_answers_differ(api):
    texts = {said(api.chat(**HOT)) for _ in range(4)}
    assert len(texts) > 1


@pytest.mark.feature("seed")
def test_a_seeded_answer_is_the_same_beside_others(api):
    alone = said(api.chat(**HOT, seed=3))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: said(api.chat(**HOT, seed=seed)), [3, 4, 5, 6]))
    assert together[0][:8] == alone[:8]  # the last digits of a sum may differ in a batch, and with them a late token


@pytest.mark.parametrize(
    "fields",
    [{"top_k": 1}, {"top_p": 0.000001}, {"min_p": 1.0}, {"top_p": 0.0}],
    ids=lambda fields: "-".join(f"{key}={value}" for key, value in fields.items()),
)
def test_bounds_that_leave_one_candidate_are_greedy(either, fields):
    assert said(either.chat(**fields, temperature=1.5, seed=1)) == said(either.chat())


@pytest.mark.parametrize("fields", [{"top_k": 0}, {"top_k": -1}, {"top_p": 1}, {"min_p": 0}], ids=str)
def test_bounds_that_leave_all_candidates_change_nothing(either, fields):
    assert said(either.chat(**HOT, seed=2, **fields)) == said(either.chat(**HOT, seed=2))


@pytest.mark.parametrize(
    "fields",
    [
        {"presence_penalty": 2},
        {"presence_penalty": -2},
        {"frequency_penalty": 2},
        {"frequency_penalty": -0.5},
        {"repetition_penalty": 1.3},
        {"presence_penalty": 1, "frequency_penalty": 1, "repetition_penalty": 1.1},
    ],
    ids=str,
)
@pytest.mark.feature("penalties")
def test_penalties_are_taken(either, fields):
    assert either.chat(**fields, ignore_eos=True)["usage"]["completion_tokens"] == 16


@pytest.mark.feature("penalties")
@pytest.mark.drawn
def test_a_strong_penalty_on_frequency_breaks_a_repetition(either):
    bias = {"65": 10, "66": 10}
    texts = [said(either.chat(logit_bias=bias, max_tokens=24, ignore_eos=True, frequency_penalty=p)) for p in (0, 2)]
    assert texts[0] != texts[1]


@pytest.mark.feature("penalties")
def test_both_spellings_of_the_repetition_penalty_are_one(either):
    one, other = (said(either.chat(**{name: 1.5}, ignore_eos=True)) for name in ("repeat_penalty", "repetition_penalty"))
    assert one == other


@pytest.mark.parametrize("temperature", [0, 0.0, 0.01, 1, 2])
def test_every_temperature_from_zero_to_two_is_taken(either, temperature):
    assert either.chat(temperature=temperature, seed=1, max_tokens=4)["usage"]["completion_tokens"] >= 1
