"""Events into counters: requests that ended, tokens that runners have computed. Knows no socket."""

from src.manager.metrics import families as own
from src.protocol import RequestEnded, RunnerStats, TokenGaps


def request_ended(request: RequestEnded) -> None:
    own.REQUESTS.labels(request.route, request.model or "", request.status).inc()
    if request.model is None or not request.endings:
        return
    for ending in request.endings:
        own.GENERATIONS.labels(request.model, ending).inc()
    for family, value in (
        (own.FIRST_TOKEN, request.first_token_seconds),
        (own.QUEUE, request.queue_seconds),
        (own.PREFILL, request.prefill_seconds),
        (own.PROMPT_LENGTH, request.prompt_tokens),
    ):
        if value is not None:
            family.labels(request.model).observe(value)
    if request.completion_tokens is not None:  # the answer came to its own end
        own.ANSWER_LENGTH.labels(request.model).observe(request.completion_tokens)
        own.WHOLE.labels(request.model).observe(request.seconds)
        own.DECODE.labels(request.model).observe(request.decode_seconds or 0.0)


def token_gaps(gaps: TokenGaps) -> None:
    histogram = own.TOKEN_GAP.labels(gaps.model)
    for seconds in gaps.seconds:
        histogram.observe(seconds)


class TokenMeter:
    """A runner counts from its start; these counters go on when it is started again."""

    def __init__(self, model: str) -> None:
        families = (own.PROMPT_TOKENS, own.CACHED_TOKENS, own.GENERATED_TOKENS, own.RESUMES, own.PREEMPTIONS, own.INVALID_OUTPUTS)
        self._families = [family.labels(model) for family in families]
        self.restart()

    def restart(self) -> None:
        self._counted = [0] * len(self._families)

    def note(self, stats: RunnerStats) -> None:
        engine = stats.engine
        now = [engine.prefix_asked, engine.prefix_hit, engine.generated, stats.resumed, stats.preempted, stats.invalid_outputs]
        for family, value, before in zip(self._families, now, self._counted, strict=True):
            family.inc(max(0, value - before))  # less: an answer that was overtaken by a later one
        self._counted = [max(pair) for pair in zip(now, self._counted, strict=True)]
