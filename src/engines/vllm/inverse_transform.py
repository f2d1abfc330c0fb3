"""Sampling one token for each row of a batch of logits, by a uniform number in [0, 1) for each row."""

from collections.abc import Sequence

import torch

from src.sampling import SamplingParams

NARROW = 1024  # on a CPU, candidates that are tried for top_p before a whole vocabulary is sorted: that takes ten times as long


def sample(logits: torch.Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]) -> torch.Tensor:
    """Token ids (n,) from logits (n, vocabulary): temperature, top-k, top-p and min-p, then inverse transform sampling.

    The same uniform number gives the same token, whatever the other rows are.
    """
    logits = logits / _column([sampling.temperature for sampling in params], logits)
    vocabulary = logits.shape[-1]
    tokens = torch.empty(len(params), dtype=torch.int64, device=logits.device)
    with_k = [row for row, sampling in enumerate(params) if 0 < sampling.top_k < vocabulary]
    with_p = [row for row, sampling in enumerate(params) if row not in with_k and sampling.top_p < 1]
    plain = [row for row in range(len(params)) if row not in with_k and row not in with_p]
    if with_k:
        tokens[with_k] = _among_likeliest(logits, with_k, params, uniforms, max(params[row].top_k for row in with_k))
    if with_p:
        width = NARROW if logits.device.type == "cpu" and vocabulary > NARROW else vocabulary
        if width < vocabulary and not _suffices(logits[with_p], [params[row] for row in with_p], width):
            width = vocabulary
        tokens[with_p] = _among_likeliest(logits, with_p, params, uniforms, width)
    if plain:
        tokens[plain] = _among_all(logits[plain], [params[row].min_p for row in plain], [uniforms[row] for row in plain])
    return tokens


def _among_likeliest(
    logits: torch.Tensor, rows: list[int], params: Sequence[SamplingParams], uniforms: Sequence[float], width: int
) -> torch.Tensor:
    """Of rows that are narrowed by top-k or top-p: only the `width` likeliest tokens can be drawn."""
    logits = logits[rows]
    narrowed = [params[row] for row in rows]
    likely, tokens = logits.topk(width, dim=-1)
    likely = likely.double()
    ranks = torch.arange(width, device=logits.device)
    most = _column([sampling.top_k or width for sampling in narrowed], likely)
    inside = ranks < most
    # Without top-k, probabilities are those among all tokens, of which the candidates are but the likeliest.
    among = torch.where(inside, likely, -torch.inf).logsumexp(-1, keepdim=True)
    everything = logits.double().logsumexp(-1, keepdim=True) if any(not sampling.top_k for sampling in narrowed) else among
    total = torch.where(_column([sampling.top_k for sampling in narrowed], likely) > 0, among, everything)
    probabilities = torch.where(inside, (likely - total).exp(), 0.0)
    before = probabilities.cumsum(-1) - probabilities
    kept = (before < _column([sampling.top_p for sampling in narrowed], likely)) & (
        probabilities >= probabilities[:, :1] * _column([sampling.min_p for sampling in narrowed], likely)
    )
    index = _invert(torch.where(kept, probabilities, 0.0), [uniforms[row] for row in rows])
    return tokens.gather(-1, index).squeeze(-1)


def _among_all(logits: torch.Tensor, min_p: list[float], uniforms: list[float]) -> torch.Tensor:
    probabilities = logits.softmax(-1, dtype=torch.float32)
    if any(min_p):
        likeliest = probabilities.max(-1, keepdim=True).values
        probabilities = torch.where(probabilities >= likeliest * _column(min_p, probabilities), probabilities, 0.0)
    return _invert(probabilities, uniforms).squeeze(-1)


def _invert(probabilities: torch.Tensor, uniforms: list[float]) -> torch.Tensor:
    """The index (n, 1) at which the sum of the probabilities (n, m), which need not add up to 1, passes its share."""
    # Double: a sum of a whole vocabulary's small numbers would lose the smallest.
    sums = probabilities.cumsum(-1, dtype=torch.float64)
    wanted = _column(uniforms, sums) * sums[:, -1:]
    return torch.searchsorted(sums, wanted, right=True).clamp_(max=sums.shape[-1] - 1)


def _suffices(logits: torch.Tensor, params: list[SamplingParams], width: int) -> bool:
    """Whether the `width` likeliest tokens of every row make up its top_p."""
    likely = logits.topk(width, dim=-1, sorted=False).values.double().logsumexp(-1, keepdim=True)
    share = (likely - logits.double().logsumexp(-1, keepdim=True)).exp()
    return bool((share >= _column([sampling.top_p for sampling in params], share)).all())


def _column(numbers: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(numbers, dtype=like.dtype).to(like.device, non_blocking=True).unsqueeze(-1)
