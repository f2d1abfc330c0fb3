"""What an answer has to be: grammars that tell which tokens may come next. Knows nothing of requests, jobs or engines."""

from src.text.grammar.compiler import Grammar, GrammarCompiler
from src.text.grammar.source import Limits, grammars_of, source_of

__all__ = ["Grammar", "GrammarCompiler", "Limits", "grammars_of", "source_of"]
