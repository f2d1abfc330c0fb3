"""What an answer has to be: grammars that tell which tokens may come next. Knows nothing of requests, jobs or engines."""

from src.text.grammar.compiler import Budget, Grammar, GrammarCompiler, Uncompiled
from src.text.grammar.keywords import EXPRESSIONS, UNSUPPORTED, loosened
from src.text.grammar.source import Limits, grammars_of, source_of

__all__ = [
    "EXPRESSIONS",
    "UNSUPPORTED",
    "Budget",
    "Grammar",
    "GrammarCompiler",
    "Limits",
    "Uncompiled",
    "grammars_of",
    "loosened",
    "source_of",
]
