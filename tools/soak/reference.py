"""What a seeded or greedy answer has to be, and whether another is as right. Knows no HTTP.

A CPU's kernels depend on the batch's size: the same prompt's logits differ a little from one batch to the next (by up to 0.25 and
0.4 on two machines), so that of two nearly equal tokens now one and now the other is drawn. An answer that leaves its
reference at such a place is as right as it; what comes after that place cannot be compared. All else is wrong.
"""

import math
from collections.abc import Sequence

import msgspec

NEAR_TIE = 0.6  # natural logarithm, between two tokens of which either may be the likeliest
NEAR_DRAW = 0.2  # share of the distribution that lies between two tokens of which the same draw may take either

RIGHT, TIE, WRONG = "right", "near tie", "wrong"


class Place(msgspec.Struct, frozen=True):
    """One token of the answer, and the likeliest there with their logarithms, the likeliest first."""

    token: str
    logprob: float
    likeliest: list[tuple[str, float]]


class Reference(msgspec.Struct, frozen=True):
    """One choice, as it was answered before the first kill. `temperature` 0: greedy."""

    text: str
    places: list[Place]
    temperature: float

    def judge(self, text: str) -> str:
        if text == self.text:
            return RIGHT
        place, rest = self._parting(text)
        if place is None or not rest:
            return WRONG  # it is a part of the other, or begins otherwise than any token there
        others = [(token, logprob) for token, logprob in place.likeliest if token != place.token and token and rest.startswith(token)]
        return TIE if any(self._near(place, token, logprob) for token, logprob in others) else WRONG

    def certain(self) -> int:
        """How many tokens come before the first near tie."""
        for at, place in enumerate(self.places):
            others = [logprob for token, logprob in place.likeliest if token != place.token]
            if others and place.logprob - max(others) < NEAR_TIE:
                return at
        return len(self.places)

    def _parting(self, text: str) -> tuple[Place | None, str]:
        """The first token that the other does not have, and what it has from there on."""
        at = 0
        for place in self.places:
            if not text.startswith(place.token, at):
                return place, text[at:]
            at += len(place.token)
        return None, ""

    def _near(self, place: Place, token: str, logprob: float) -> bool:
        if not self.temperature:
            return place.logprob - logprob < NEAR_TIE
        return _between(place, token, self.temperature) < NEAR_DRAW


def _between(place: Place, token: str, temperature: float) -> float:
    """How much of the distribution, the likeliest first, lies between the two tokens; 0 for neighbours."""
    weights = [math.exp(logprob / temperature) for _, logprob in place.likeliest]
    names = [name for name, _ in place.likeliest]
    if place.token not in names or token not in names:
        return 1.0
    one, other = sorted((names.index(place.token), names.index(token)))
    return sum(weights[one + 1 : other]) / sum(weights)


def worst(verdicts: Sequence[str]) -> str:
    return max(verdicts, key=(RIGHT, TIE, WRONG).index, default=WRONG)
