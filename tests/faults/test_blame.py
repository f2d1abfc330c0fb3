"""Who is to blame for a dead runner: who was on trial when it died of itself. Nobody is, for a kill from outside."""

import pytest

from src.api.progress import Progress
from src.api.pursuit import Pursuit
from src.errors import EngineCrashed
from src.protocol import Delta, Generate, TextPrompt
from src.sampling import SamplingParams

CRASH, HANG, MEMORY, KILL = (
    "signal SIGSEGV",
    "a hang: no step for 9 s",
    "signal SIGKILL, for the machine was out of memory",
    "signal SIGKILL",
)


class Suspect(Pursuit):
    """A request as its pursuit sees it, without the sockets."""

    def __init__(self) -> None:
        super().__init__(None, 0, None)
        self._progress = Progress(Generate(prompts=[TextPrompt(text="x")], sampling=SamplingParams(seed=1)))

    def draws(self, tokens: int) -> "Suspect":
        self._progress.push(Delta(text="x", tokens=[1] * tokens))
        return self

    def is_tried(self, open: bool = True) -> "Suspect":
        self._on_trial, self._computed = open, True
        return self

    def sees(self, death: str) -> int:
        """How many deaths the next runner is told of."""
        self._blame(death)
        return self._progress.again() and self._deaths


@pytest.mark.parametrize("death", [CRASH, HANG, MEMORY])
def test_who_is_on_trial_at_a_second_death_is_guilty(death):
    suspect = Suspect().draws(50)
    assert suspect.sees(death) == 1
    with pytest.raises(EngineCrashed, match=death):
        suspect.is_tried().sees(death)


def test_who_has_passed_its_trial_or_waits_for_it_is_not():
    passed, waiting = Suspect(), Suspect()
    assert (passed.sees(CRASH), waiting.sees(CRASH)) == (1, 1)
    assert passed.is_tried(open=False).sees(CRASH) == 2
    assert waiting.sees(CRASH) == 1, "it was not being computed"


def test_a_newcomer_on_trial_has_a_second_chance_and_no_third():
    newcomer = Suspect().is_tried()
    assert newcomer.sees(CRASH) == 1
    with pytest.raises(EngineCrashed):
        newcomer.is_tried().sees(CRASH)


def test_a_kill_from_outside_puts_nobody_on_trial_who_gets_on():
    suspect = Suspect()
    for _ in range(10):
        assert suspect.draws(20).sees(KILL) == 0


def test_who_never_gets_on_between_kills_is_tried_and_then_guilty():
    suspect = Suspect()
    assert [suspect.sees(KILL) for _ in range(2)] == [0, 1]
    assert suspect.is_tried().sees(KILL) == 2
    with pytest.raises(EngineCrashed):
        suspect.is_tried().sees(KILL)


def test_what_was_long_ago_is_forgotten():
    suspect = Suspect()
    assert suspect.sees(CRASH) == 1
    assert suspect.is_tried(open=False).draws(300).sees(CRASH) == 1
