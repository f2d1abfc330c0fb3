"""What counts as numbers, for every engine alike."""

import math

import pytest

from src.engines.finite import check_row, check_vector, masks
from src.errors import InvalidOutput, NothingToDraw
from src.sampling import SamplingParams


@pytest.mark.parametrize("largest", [math.nan, math.inf, -math.inf])
def test_a_row_without_a_finite_maximum_is_the_models_fault(largest):
    with pytest.raises(InvalidOutput):
        check_row(largest)


def test_a_row_that_masks_emptied_is_the_requests_fault_and_they_are_named():
    with pytest.raises(NothingToDraw, match="min_tokens, the schema or grammar"):
        check_row(-math.inf, ["min_tokens", "the schema or grammar"])


@pytest.mark.parametrize("largest", [math.nan, math.inf])
def test_no_mask_makes_nan(largest):
    with pytest.raises(InvalidOutput):
        check_row(largest, ["min_tokens"])


def test_only_what_forbids_a_token_at_this_place_is_named():
    params = SamplingParams(seed=0, min_tokens=3)
    assert masks(params, 2, grammar=False) == ["min_tokens"]
    assert masks(params, 3, grammar=False) == []
    assert masks(SamplingParams(seed=0, ignore_eos=True), 9, grammar=True) == ["ignore_eos", "the schema or grammar"]


@pytest.mark.parametrize("values", [[1.0, math.nan], [math.inf, 1.0], [math.inf, -math.inf], [-math.inf, 1.0], [0.0, -0.0]])
def test_a_vector_without_a_direction_is_none(values):
    with pytest.raises(InvalidOutput):
        check_vector(values)


def test_numbers_that_cancel_each_other_are_a_vector():
    check_vector([1.0, -1.0])
    check_row(-3.0e38)
