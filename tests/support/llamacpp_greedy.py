"""Is a completion llama.cpp's own greedy one? Asked of llama.cpp alone: one sequence, nothing reused."""

from pathlib import Path

import llama_cpp
import numpy as np

# What the difference of two logits may change by. The CPU's matrix kernels depend on the batch's size: llama.cpp alone, given the
# same 220 tokens at once or one by one, computed logits that differ by up to 0.25 (Intel with AMX) and 0.40 (AMD EPYC), so that
# near ties fall either way. Another context changes them by far more: a test holds that.
TOLERANCE = 0.6


class GreedyReference:
    def __init__(self, model_path: Path, context_length: int, lora_path: Path | None = None) -> None:
        self._llama = llama_cpp.Llama(
            str(model_path), n_ctx=context_length, n_threads=1, lora_path=str(lora_path) if lora_path else None, verbose=False
        )

    def shortfall(self, tokens: list[int], drawn: list[int]) -> float:
        """By how much the logit of a drawn token lies below the best one at its place, at worst."""
        self._llama.reset()
        self._llama.eval(tokens)
        worst = 0.0
        for token in drawn:
            logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._llama.ctx, -1), shape=(self._llama.n_vocab(),))
            worst = max(worst, float(logits.max() - logits[token]))
            self._llama.eval([token])
        return worst

    def assert_greedy(self, tokens: list[int], drawn: list[int]) -> None:
        assert drawn
        assert self.shortfall(tokens, drawn) <= TOLERANCE, "llama.cpp alone would have drawn something else"
