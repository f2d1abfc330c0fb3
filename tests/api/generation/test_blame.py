"""Who is to blame for a dead runner: whoever was in quarantine when it died of itself. Nobody is, for a kill from outside."""

import pytest

from src.api.generation.blame import Blame
from src.api.generation.progress import Progress
from src.errors import EngineCrashed
from src.protocol import Delta, Generate, Quarantined, TextPrompt
from src.sampling import SamplingParams

CRASH, HANG, MEMORY, KILL = (
    "signal SIGSEGV",
    "a hang: no step for 9 s",
    "signal SIGKILL, for the machine was out of memory",
    "signal SIGKILL",
)


class Suspect(Progress):
    """A request whose runners die."""

    def __init__(self) -> None:
        super().__init__(Generate(prompts=[TextPrompt(text="x")], sampling=SamplingParams(seed=1)))

    def draws(self, tokens: int) -> "Suspect":
        self.push(Delta(text="x", tokens=[1] * tokens))
        return self

    def is_quarantined(self, open: bool = True) -> "Suspect":
        assert self.push(Quarantined(open=open)) == []
        return self

    def loses(self, exit: str) -> int:
        """How many crashes the next runner hears of."""
        self.fruitless += 1
        self.runner_died(exit)
        return self.resume_request().crashes


@pytest.mark.parametrize("exit", [CRASH, HANG, MEMORY])
def test_who_is_in_quarantine_at_a_second_crash_is_guilty(exit):
    suspect = Suspect().draws(50)
    assert suspect.loses(exit) == 1
    with pytest.raises(EngineCrashed, match=exit):
        suspect.is_quarantined().loses(exit)


def test_who_has_left_quarantine_or_waits_for_it_is_not():
    passed, waiting = Suspect(), Suspect()
    assert (passed.loses(CRASH), waiting.loses(CRASH)) == (1, 1)
    assert passed.is_quarantined(open=False).loses(CRASH) == 2
    assert waiting.loses(CRASH) == 1, "it was not being computed"


def test_a_newcomer_in_quarantine_has_a_second_chance_and_no_third():
    newcomer = Suspect().is_quarantined()
    assert newcomer.loses(CRASH) == 1
    with pytest.raises(EngineCrashed):
        newcomer.is_quarantined().loses(CRASH)


@pytest.mark.parametrize("tokens", [1, 20])
def test_a_kill_from_outside_makes_nobody_suspect_who_gets_tokens(tokens):
    suspect = Suspect()
    for _ in range(10):
        assert suspect.draws(tokens).loses(KILL) == 0


def test_who_never_gets_a_token_between_kills_is_quarantined_and_then_guilty():
    suspect = Suspect()
    assert [suspect.loses(KILL) for _ in range(2)] == [0, 1]
    assert suspect.is_quarantined().loses(KILL) == 2
    with pytest.raises(EngineCrashed):
        suspect.is_quarantined().loses(KILL)


def test_what_was_long_ago_is_forgotten():
    suspect = Suspect()
    assert suspect.loses(CRASH) == 1
    assert suspect.is_quarantined(open=False).draws(300).loses(CRASH) == 1


def test_only_tokens_of_the_runner_that_died_count_as_harmless():
    """Those from the runners before it say nothing of it."""
    suspect = Suspect().draws(300)
    assert suspect.loses(CRASH) == 1
    assert suspect.is_quarantined(open=False).draws(3).loses(CRASH) == 2


def test_blame_counts_strikes_of_one_request_alone():
    guilty, other = Blame(), Blame()
    for blame in (guilty, other):
        blame.runner_died(CRASH, 0, fruitless=False)
    guilty.quarantined(True)
    other.quarantined(False)
    with pytest.raises(EngineCrashed):
        guilty.runner_died(CRASH, 0, fruitless=False)
    other.runner_died(CRASH, 0, fruitless=False)
