"""Grammars by llguidance over a model's vocabulary: compiled once, copied for each job. Knows nothing of forms, jobs or engines."""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from src.errors import EngineError, InvalidSchema
from src.text.grammar.source import Limits
from src.text.tokenizer import Tokenizer

SPECIAL = b"\xff"  # what llguidance puts before the name of a token that no text is to match
KEPT = 64  # compiled grammars
KEPT_BYTES = 1 << 20  # of their sources together
TOO_COMPLEX = ("fuel exhausted", "too large", "too many", "Too Complex", "TooComplex")


class Grammar:
    """One job's place in a grammar: satisfies the engines' contract. For one thread at a time."""

    def __init__(self, source: str, matcher: LLMatcher) -> None:
        self.source = source
        self._matcher = matcher

    def allowed(self) -> bytes:
        """A bit for each token of the vocabulary, the lowest of a byte first. Raises EngineError."""
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise EngineError("The grammar of this request has become too complex to follow. Use a simpler schema or expression.")
        return mask

    def accept(self, token: int) -> None:
        """Go on behind a token. Raises EngineError for one that is not allowed."""
        if not self._matcher.consume_token(token):
            raise EngineError("A token was drawn that the grammar of this request does not allow.")


class GrammarCompiler:
    """Any thread may compile; llguidance lets others run meanwhile. The vocabulary is prepared when it is first needed."""

    def __init__(self, tokenizer: Tokenizer, limits: Limits | None = None) -> None:
        self._tokenizer = tokenizer
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self._vocabulary: LLTokenizer | None = None
        self._kept: OrderedDict[str, LLMatcher] = OrderedDict()  # the longest unused first

    def compile(self, source: str, known: Sequence[int] = (), param: str | None = None) -> Grammar:
        """The grammar behind the tokens `known` of an answer. Raises InvalidSchema, which names `param`."""
        matcher = self._compiled(source, param).deep_copy()
        if known and not matcher.consume_tokens(list(known)):
            raise EngineError("The tokens that are known of this answer do not follow its grammar.")
        return Grammar(source, matcher)

    def _compiled(self, source: str, param: str | None) -> LLMatcher:
        with self._lock:
            if matcher := self._kept.get(source):
                self._kept.move_to_end(source)
                return matcher
            if self._vocabulary is None:
                self._vocabulary = _prepare(self._tokenizer)
        matcher = LLMatcher(self._vocabulary, source, limits=LLParserLimits(verbose_errors=False), log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()  # some find only here that nothing at all can be written
        if matcher.is_error():
            raise InvalidSchema(f"{param}: {_reason(matcher.get_error())}", param)
        if warnings := matcher.get_grammar_warnings():
            raise InvalidSchema(f"{param}: {_reason(warnings[0])}", param)
        with self._lock:
            self._keep(source, matcher)
        return matcher

    def _keep(self, source: str, matcher: LLMatcher) -> None:
        self._kept[source] = matcher
        while len(self._kept) > KEPT or (len(self._kept) > 1 and sum(map(len, self._kept)) > KEPT_BYTES):
            self._kept.popitem(last=False)


class _Vocabulary:
    """A Tokenizer as llguidance asks for one."""

    bos_token_id = None
    special_token_ids: Sequence[int] = ()

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eos_token_id = tokenizer.end_tokens[0]
        self.tokens = [_named(tokenizer, token) for token in range(tokenizer.vocab_size)]
        self._encode: Callable[[str], list[int]] = lambda text: tokenizer.encode(text, add_bos=False)

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


def _named(tokenizer: Tokenizer, token: int) -> bytes:
    if piece := tokenizer.piece(token):
        return piece
    name = tokenizer.name(token)
    return SPECIAL + name if name else b""


def _prepare(tokenizer: Tokenizer) -> LLTokenizer:
    """Raises EngineError for a model none of whose tokens ends an answer: a grammar could not end it either."""
    if not tokenizer.end_tokens:
        raise EngineError("This model has no token that ends an answer, so no answer can be held to a grammar.")
    wrapper = TokenizerWrapper(_Vocabulary(tokenizer))
    return LLTokenizer(wrapper, n_vocab=tokenizer.vocab_size, eos_token=list(tokenizer.end_tokens))


def _reason(error: str) -> str:
    """llguidance's message in one short sentence for who wrote the schema."""
    if any(sign in error for sign in TOO_COMPLEX):
        return "it is too complex. Use a simpler schema or expression."
    if "NoExtension" in error:
        return "nothing that is finite satisfies it."
    if unimplemented := re.search(r"Unimplemented keys: (\[.*?\])", error):
        keywords = ", ".join(json.loads(unimplemented[1]))
        return f"the keyword {keywords} is not supported."
    if "regex parse error" in error:
        error = f"wrong regular expression (pattern): {error.rsplit('error: ', 1)[-1]}"
    error = error.split("\n", 1)[0].removesuffix("Enable 'coerce_one_of' option to approximate oneOf with anyOf")
    error = re.sub(r"^at \d+\(\d+\): ", "", error)
    return f"{error.strip().rstrip('.')[:200]}."
