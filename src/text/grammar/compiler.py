"""Grammars over a model's vocabulary: compiled once, copied for each job. Knows nothing of forms, jobs or engines."""

import contextlib
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from llguidance import LLMatcher, LLTokenizer

from src.errors import FIELD, EngineError, FieldPath, InvalidSchema
from src.text.grammar.matcher import Refused, TooSlow, compile_source
from src.text.grammar.process import CompilerProcess
from src.text.grammar.source import Limits, grammars_of
from src.text.grammar.vocabulary import Vocabulary
from src.text.tokenizer.base import Tokenizer

KEPT = 64  # grammars, compiled or refused
KEPT_BYTES = 1 << 20  # of their sources together
KEPT_SLOW = 1024  # those that took too long: they are to be refused at once for longer than others are kept
SAME = 1.1  # what has had so many seconds is not tried again for a few more
MASK_SECONDS, MASK_SECONDS_PER_TOKEN = 0.5, 0.005  # of processor time, the engine's: others wait for their tokens meanwhile
TOO_COMPLEX = "The grammar of this request has become too complex to follow. Use a simpler schema or expression."


class Grammar:
    """One job's place in a grammar: satisfies the engines' contract. For one thread at a time."""

    def __init__(self, source: str, compiled: LLMatcher, completion: Sequence[int] = ()) -> None:
        """Behind the tokens that are known of an answer. Raises EngineError where they do not follow the grammar."""
        self.source = source
        self._compiled = compiled
        self._matcher = compiled.deep_copy()
        self._seconds_left = MASK_SECONDS
        if completion and not self._matcher.consume_tokens(list(completion)):
            raise EngineError("The tokens that are known of this answer do not follow its grammar.")

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

    def behind(self, completion: list[int]) -> "Grammar":
        return Grammar(self.source, self._compiled, completion)


class Uncompiled(Exception):
    """A grammar would have to be compiled, and is not to be."""


class Budget:
    """What the grammars of one request may take together. Half of it is kept for the whole one: before it, its parts are tried."""

    def __init__(self, seconds: float, *, compiles: bool = True) -> None:
        """`compiles`: whether anything may be compiled at all; any thread may set it to False at any time."""
        self.compiles = compiles
        self.left = seconds
        self._kept = seconds / 2

    @property
    def left_for_parts(self) -> float:
        return self.left - self._kept

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.left -= time.monotonic() - began


class GrammarCompiler:
    """Any thread may compile; llguidance lets others run meanwhile. The vocabulary is prepared when it is first needed."""

    def __init__(self, tokenizer: Tokenizer, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._prepared: tuple[Vocabulary, LLTokenizer] | None = None
        self._idle: list[CompilerProcess] = []  # as many as have been busy at the same time
        self._kept: OrderedDict[str, LLMatcher | Refused] = OrderedDict()  # the longest unused first
        self._slow: OrderedDict[bytes, float] = OrderedDict()  # digests of what was too slow: the seconds it has had

    def compile(
        self, source: str, known: Sequence[int] = (), param: str | FieldPath | None = None, budget: Budget | None = None
    ) -> Grammar:
        """The grammar behind the tokens `known` of an answer. Raises InvalidSchema, which names `param`, and Uncompiled."""
        budget = budget or Budget(self.limits.seconds)
        return Grammar(source, self._compiled(source, param, budget, budget.left), known)

    def try_part(self, source: str, param: str | FieldPath | None = None, budget: Budget | None = None) -> None:
        """Whether a part of a grammar can be compiled. Raises InvalidSchema, which names `param`, and Uncompiled."""
        budget = budget or Budget(self.limits.seconds)
        self._compiled(source, param, budget, budget.left_for_parts)

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
            for process in self._idle:
                process.close()

    def _is_special(self, text: str) -> bool:
        ids = self._tokenizer.encode(text, add_bos=False)
        return len(ids) == 1 and not self._tokenizer.bytes_of(ids[0])

    def _expression(self, text: str) -> str:
        """A text in Lark: by its number where it is one token that is no text."""
        return f"<[{self._tokenizer.encode(text, add_bos=False)[0]}]>" if self._is_special(text) else json.dumps(text, ensure_ascii=False)

    def _compiled(self, source: str, param: str | FieldPath | None, budget: Budget, seconds: float) -> LLMatcher:
        compiled = self._known(source, seconds)
        if compiled is None:
            if not budget.compiles:
                raise Uncompiled
            vocabulary, tokenizer = self._prepare()
            with self._process(vocabulary) as process:
                process.start()
                with budget.spending():
                    compiled = self._compile(source, seconds, tokenizer, process)
        if isinstance(compiled, Refused):
            raise InvalidSchema(f"{FIELD}: {compiled}.", param)
        return compiled

    def _known(self, source: str, seconds: float) -> LLMatcher | Refused | None:
        """What has been compiled or refused before; too slow is what has had about as many seconds and was not through."""
        with self._lock:
            if source in self._kept:
                self._kept.move_to_end(source)
                return self._kept[source]
            digest = _digest(source)
            if seconds > SAME * self._slow.get(digest, 0.0):
                return None
            if digest in self._slow:
                self._slow.move_to_end(digest)
            return TooSlow(self.limits.seconds)

    def _prepare(self) -> tuple[Vocabulary, LLTokenizer]:
        with self._lock:
            if self._prepared is None:
                vocabulary = Vocabulary.of(self._tokenizer)
                self._prepared = vocabulary, vocabulary.prepare(lambda text: self._tokenizer.encode(text, add_bos=False))
            return self._prepared

    @contextlib.contextmanager
    def _process(self, vocabulary: Vocabulary) -> Iterator[CompilerProcess]:
        """One that nobody uses meanwhile."""
        with self._lock:
            process = self._idle.pop() if self._idle else CompilerProcess(vocabulary, self.limits.seconds)
        try:
            yield process
        finally:
            with self._lock:
                self._idle.append(process)

    def _compile(self, source: str, seconds: float, tokenizer: LLTokenizer, process: CompilerProcess) -> LLMatcher | Refused:
        compiled: LLMatcher | Refused
        try:
            process.check(source, seconds)
            compiled = compile_source(tokenizer, source)
            compiled.compute_bitmask()  # the first takes the longest: not in each job, and not in the engine's thread
        except TooSlow as refused:
            with self._lock:
                self._slow[_digest(source)] = seconds
                while len(self._slow) > KEPT_SLOW:
                    self._slow.popitem(last=False)
            return refused
        except Refused as refused:
            compiled = refused
        with self._lock:
            self._remember(source, compiled)
        return compiled

    def _remember(self, source: str, compiled: LLMatcher | Refused) -> None:
        self._kept[source] = compiled
        while len(self._kept) > KEPT or (len(self._kept) > 1 and sum(map(len, self._kept)) > KEPT_BYTES):
            self._kept.popitem(last=False)


def _digest(source: str) -> bytes:
    return hashlib.sha256(source.encode(errors="replace")).digest()
