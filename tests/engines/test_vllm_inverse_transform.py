"""The draw of the engine vLLM: what may be drawn, how often, and that it hangs on nothing but its own row and number."""

from collections import Counter

import pytest

torch = pytest.importorskip("torch", reason="the package vllm is not installed")

from src.engines.vllm import inverse_transform  # noqa: E402
from src.engines.vllm.inverse_transform import sample  # noqa: E402
from src.sampling import SamplingParams  # noqa: E402

LOGITS = torch.log(torch.tensor([[0.05, 0.4, 0.15, 0.1, 0.3]]))  # in falling order: 1, 4, 2, 3, 0
CHANCES = [(number + 0.5) / 1000 for number in range(1000)]


def shares(**sampling) -> dict[int, float]:
    """How often each token is drawn by evenly spread numbers."""
    params = [SamplingParams(seed=0, **sampling)] * len(CHANCES)
    tokens = sample(LOGITS.repeat(len(CHANCES), 1), params, CHANCES)
    return {token: count / len(CHANCES) for token, count in Counter(tokens.tolist()).items()}


def test_each_token_is_drawn_as_often_as_is_likely():
    assert shares() == pytest.approx({0: 0.05, 1: 0.4, 2: 0.15, 3: 0.1, 4: 0.3}, abs=0.002)


def test_a_temperature_bends_the_distribution():
    squares = {0: 0.0025, 1: 0.16, 2: 0.0225, 3: 0.01, 4: 0.09}
    expected = {token: square / sum(squares.values()) for token, square in squares.items()}
    assert shares(temperature=0.5) == pytest.approx(expected, abs=0.002)


def test_top_k_keeps_the_likeliest():
    assert shares(top_k=2) == pytest.approx({1: 4 / 7, 4: 3 / 7}, abs=0.002)


def test_top_p_keeps_the_fewest_that_make_it_up():
    assert set(shares(top_p=0.69)) == {1, 4}
    assert set(shares(top_p=0.71)) == {1, 4, 2}


def test_top_p_after_top_k_counts_what_top_k_has_left():
    assert set(shares(top_k=2, top_p=0.56)) == {1}
    assert set(shares(top_k=2, top_p=0.58)) == {1, 4}


def test_min_p_is_a_share_of_the_likeliest():
    assert set(shares(min_p=0.5)) == {1, 4}
    assert set(shares(min_p=0.5, top_k=3)) == {1, 4}


def test_a_top_k_beyond_the_vocabulary_keeps_all():
    assert set(shares(top_k=100)) == {0, 1, 2, 3, 4}


def test_a_token_that_is_masked_is_never_drawn():
    logits = LOGITS.clone()
    logits[0, 1] = -torch.inf
    for sampling in ({}, {"top_k": 3}, {"top_p": 0.9}):
        tokens = sample(logits.repeat(3, 1), [SamplingParams(seed=0, **sampling)] * 3, [0.0, 0.5, 1 - 2**-32])
        assert 1 not in tokens.tolist()


@pytest.mark.parametrize("narrow", [16, 4096])
def test_a_narrow_look_for_top_p_draws_what_a_full_one_does(monkeypatch, narrow):
    """The likeliest 16 make up the first rows' top_p, and not the last ones', whose distribution is flat."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.cat([torch.randn(20, 4096, generator=generator) * scale for scale in (8, 0.1)])
    params = [SamplingParams(seed=0, top_p=0.9)] * len(logits)
    uniforms = [(row + 0.5) / len(logits) for row in range(len(logits))]
    monkeypatch.setattr(inverse_transform, "NARROW", narrow)
    assert inverse_transform._suffices(logits[:20], params[:20], 4000)
    assert not inverse_transform._suffices(logits, params, 16)
    full = logits.double().sort(descending=True)
    expected = []
    for row, uniform in enumerate(uniforms):
        probabilities = full.values[row].softmax(-1)
        kept = probabilities[probabilities.cumsum(-1) - probabilities < 0.9]
        expected.append(int(full.indices[row, int((kept.cumsum(-1) <= uniform * kept.sum()).sum())]))
    assert sample(logits, params, uniforms).tolist() == expected


def test_a_row_draws_the_same_whatever_is_beside_it():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(6, 3000, generator=generator)
    params = [
        SamplingParams(seed=0, **sampling)
        for sampling in ({}, {"top_k": 40}, {"top_p": 0.9}, {"top_k": 7, "top_p": 0.5}, {"min_p": 0.1, "temperature": 0.7}, {})
    ]
    uniforms = [0.1, 0.3, 0.5, 0.7, 0.9, 0.2]
    together = sample(logits, params, uniforms).tolist()
    assert together == [int(sample(logits[[row]], [params[row]], [uniforms[row]])) for row in range(6)]
