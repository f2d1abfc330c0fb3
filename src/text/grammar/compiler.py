"""Grammars over a model's vocabulary: compiled once, copied for each job. Knows nothing of forms, jobs or engines."""

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

from llguidance import LLMatcher, LLTokenizer

from src.errors import EngineError, InvalidSchema
from src.text.grammar.matcher import Refused, compile_source
from src.text.grammar.source import Limits, grammars_of
from src.text.grammar.trial import Trial
from src.text.grammar.vocabulary import Vocabulary
from src.text.tokenizer import Tokenizer

KEPT = 64  # grammars, compiled or refused
KEPT_BYTES = 1 << 20  # of their sources together
MASK_SECONDS, MASK_SECONDS_PER_TOKEN = 0.5, 0.005  # of processor time, the engine's: others wait for their tokens meanwhile
TOO_COMPLEX = "The grammar of this request has become too complex to follow. Use a simpler schema or expression."


class Grammar:
    """One job's place in a grammar: satisfies the engines' contract. For one thread at a time."""

    def __init__(self, source: str, matcher: LLMatcher) -> None:
        self.source = source
        self._matcher = matcher
        self._seconds_left = MASK_SECONDS

    def allowed(self) -> bytes:
        """A bit for each token of the vocabulary, the lowest of a byte first. Raises EngineError."""
        began = time.thread_time()
        mask = self._matcher.compute_bitmask()
        self._seconds_left += MASK_SECONDS_PER_TOKEN - (time.thread_time() - began)
        if self._matcher.is_error() or self._seconds_left < 0:
            raise EngineError(TOO_COMPLEX)
        return mask

    def accept(self, token: int) -> None:
        """Go on behind a token. Raises EngineError for one that is not allowed."""
        if not self._matcher.consume_token(token):
            raise EngineError("A token was drawn that the grammar of this request does not allow.")


class GrammarCompiler:
    """Any thread may compile; llguidance lets others run meanwhile. The vocabulary is prepared when it is first needed."""

    def __init__(self, tokenizer: Tokenizer, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._prepared: tuple[LLTokenizer, Trial] | None = None
        self._kept: OrderedDict[str, LLMatcher | Refused] = OrderedDict()  # the longest unused first

    def knows(self, source: str) -> bool:
        """Whether to compile it takes no time."""
        with self._lock:
            return source in self._kept

    def compile(self, source: str, known: Sequence[int] = (), param: str | None = None) -> Grammar:
        """The grammar behind the tokens `known` of an answer. Raises InvalidSchema, which names `param`."""
        found = self._find(source)
        if isinstance(found, Refused):
            raise InvalidSchema(f"{param}: {found}.", param)
        matcher = found.deep_copy()
        if known and not matcher.consume_tokens(list(known)):
            raise EngineError("The tokens that are known of this answer do not follow its grammar.")
        return Grammar(source, matcher)

    def after(self, source: str, *, end: str, begin: str = "") -> str:
        """The source of an answer behind a text that is free up to `end`: a model's reasoning, which may begin with `begin`."""
        begins = f"({self._expression(begin)})? " if begin else ""
        if self._is_special(end):
            text = f"start: {begins}TEXT {self._expression(end)} GAP? @answer\nTEXT: /(?s:.*)/"
        else:
            text = f"start: {begins}text GAP? @answer\ntext[lazy]: /(?s:.*)/ {self._expression(end)}"
        first, *others = grammars_of(source)
        grammars = [{"lark_grammar": f"{text}\nGAP: /[ \\n]{{1,4}}/"}, {**first, "name": "answer"}, *others]
        return json.dumps({"grammars": grammars}, ensure_ascii=False)

    def close(self) -> None:
        with self._lock:
            if self._prepared:
                self._prepared[1].close()

    def _is_special(self, text: str) -> bool:
        ids = self._tokenizer.encode(text, add_bos=False)
        return len(ids) == 1 and not self._tokenizer.piece(ids[0])

    def _expression(self, text: str) -> str:
        """A text in Lark: by its number where it is one token that is no text."""
        return f"<[{self._tokenizer.encode(text, add_bos=False)[0]}]>" if self._is_special(text) else json.dumps(text, ensure_ascii=False)

    def _find(self, source: str) -> LLMatcher | Refused:
        with self._lock:
            if source in self._kept:
                self._kept.move_to_end(source)
                return self._kept[source]
            if self._prepared is None:
                vocabulary = Vocabulary.of(self._tokenizer)
                prepared = vocabulary.prepare(lambda text: self._tokenizer.encode(text, add_bos=False))
                self._prepared = prepared, Trial(vocabulary, self.limits.seconds)
            vocabulary_of_llguidance, trial = self._prepared
        found: LLMatcher | Refused
        try:
            trial.check(source)
            found = compile_source(vocabulary_of_llguidance, source)
            found.compute_bitmask()  # the first takes the longest: not in each job, and not in the engine's thread
        except Refused as refused:
            found = refused
        with self._lock:
            self._keep(source, found)
        return found

    def _keep(self, source: str, found: LLMatcher | Refused) -> None:
        self._kept[source] = found
        while len(self._kept) > KEPT or (len(self._kept) > 1 and sum(map(len, self._kept)) > KEPT_BYTES):
            self._kept.popitem(last=False)
