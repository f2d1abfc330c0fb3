"""Whether a model's numbers can be believed: damaged weights and overflows come out as NaN or infinity. Knows no library."""

import math
from collections.abc import Sequence

from src.errors import InvalidOutput, NothingToDraw
from src.sampling import SamplingParams


def check_row(largest: float, masks: Sequence[str] = ()) -> None:
    """`largest`: the maximum of a row of logits, NaN where one of them is; `masks`: what was applied to the row before.

    Raises InvalidOutput, and NothingToDraw where the masks left nothing of the row."""
    if math.isfinite(largest):
        return
    raise nothing_to_draw(masks) if masks and largest == -math.inf else invalid_row()


def nothing_to_draw(masks: Sequence[str]) -> NothingToDraw:
    return NothingToDraw(f"The request allows no token here: {', '.join(masks)} together forbid all of them. Relax one of these.")


def invalid_row() -> InvalidOutput:
    return InvalidOutput(
        "The model computed NaN or infinite logits for this request; retrying does not help. Change the prompt; "
        "the operator can check the model's files or use another quantisation."
    )


def check_vector(values: Sequence[float]) -> None:
    """Raises InvalidOutput for a vector that has no direction."""
    if not math.isfinite(sum(values)):
        raise InvalidOutput("The model computed NaN or infinite numbers for this input's vector. The operator can check the model's files.")
    if not any(values):
        raise InvalidOutput("The model computed a vector of zeros for this input, which cannot have length 1.")


def masks(params: SamplingParams, drawn: int, *, grammar: bool) -> list[str]:
    """What forbids a job some tokens, for people; `drawn`: completion tokens so far."""
    forbids = {"min_tokens": drawn < params.min_tokens, "ignore_eos": params.ignore_eos, "the schema or grammar": grammar}
    return [name for name, applies in forbids.items() if applies]
