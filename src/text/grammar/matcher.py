"""One grammar compiled by llguidance, or why it is refused. Knows nothing of the process it runs in."""

import json
import random
import re
import time

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

LIMITS = LLParserLimits(verbose_errors=False, step_max_items=20_000)
WALKS, STEPS = 2, 12  # of a trial
WALK_SECONDS = 0.25  # of processor time: the masks of an answer are made between the tokens of everybody's answers
TOO_COMPLEX = ("fuel exhausted", "too large", "too many", "Too many", "TooComplex", "limit exceeded", "max is")


class Refused(Exception):
    """The grammar is wrong, or too much. Its text is for who wrote it."""


class TooSlow(Refused):
    def __init__(self, seconds: float) -> None:
        super().__init__(f"compiling it takes longer than the {seconds:g} s that GRAMMAR_COMPILE_SECONDS allows to a request in all")


def compile_source(vocabulary: LLTokenizer, source: str) -> LLMatcher:
    """Raises Refused."""
    matcher = LLMatcher(vocabulary, source, limits=LIMITS, log_level=0)
    if matcher.is_error():
        raise Refused(_reason(matcher.get_error()))
    if warnings := matcher.get_grammar_warnings():  # it would go on without something
        raise Refused(_reason(warnings[0]))
    return matcher


def try_out(matcher: LLMatcher) -> None:
    """Write the beginnings of some answers. Raises Refused where that takes long, for it would at every token, and where nothing
    can be written at all, which some find only then."""
    began = time.thread_time()
    for seed in range(WALKS):
        _walk(matcher.deep_copy(), random.Random(seed))
        if time.thread_time() - began > WALK_SECONDS:
            raise Refused("following it takes too long: use a simpler schema or expression")


def _walk(matcher: LLMatcher, draw: random.Random) -> None:
    for _ in range(STEPS):
        mask = matcher.compute_bitmask()
        if matcher.is_error():
            raise Refused(_reason(matcher.get_error()))
        if matcher.is_stopped():
            return
        found = ANY.search(mask, draw.randrange(len(mask))) or ANY.search(mask)
        assert found
        byte = found[0][0]
        matcher.consume_token(found.start() * 8 + (byte & -byte).bit_length() - 1)


ANY = re.compile(rb"[^\0]")


def _reason(error: str) -> str:
    """llguidance's message as the rest of a short sentence."""
    if any(sign in error for sign in TOO_COMPLEX):
        return "it is too complex: use a simpler schema or expression"
    if "NoExtension" in error:
        return "nothing that is finite satisfies it"
    if unimplemented := re.search(r"Unimplemented keys: (\[.*?\])", error):
        return f"the keyword {', '.join(json.loads(unimplemented[1]))} is not supported"
    if "regex parse error" in error:
        error = f"the regular expression (pattern) is wrong: {error.rsplit('error: ', 1)[-1]}"
    if "coerce_one_of" in error:
        error = "the keyword oneOf is not supported where more than one of its schemas may hold; use anyOf"
    error = re.sub(r"^at \d+\(\d+\): ", "", error.strip().split("\n", 1)[0])
    return error.strip().rstrip(".")[:200]
