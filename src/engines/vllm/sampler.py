"""The draw of every token, as a logits processor in vLLM's worker processes. Knows nothing of requests or of scheduling.

vLLM's own sampler draws by a generator for each request, whose state a resumed job would not find again, and takes what a
resumed job has drawn before for its prompt. Here vLLM is always told to take the likeliest token, and this makes that the
one that was drawn: stateless, from the job's seed and the token's position, as on the other engines. Where vLLM runs with
several ranks each of them draws, from the same logits by the same numbers.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

from src.engines import finite
from src.engines.base import Job
from src.engines.vllm import clean_cells
from src.engines.vllm.inverse_transform import sample
from src.engines.vllm.reports import Report, send
from src.errors import EngineError, NothingToDraw
from src.hf_folder import end_tokens
from src.sampling import SamplingParams, mix_seed

clean_cells.install()  # here, for this module is what each of vLLM's processes imports of ours


class RowJob(msgspec.Struct, frozen=True):
    """What a worker is told of a job, beside its tokens: crosses vLLM's sockets as `extra_args`."""

    sampling: SamplingParams
    prompt_tokens: int
    grammar: str | None
    id: int
    reports: str  # where to tell of its failure

    @classmethod
    def extra_args(cls, job: Job, reports: str) -> dict[str, Any]:
        described = cls(job.sampling, job.prompt_tokens, job.grammar.source if job.grammar else None, job.id, reports)
        return {"job": msgspec.json.encode(described).decode()}


class Sampler(LogitsProcessor):  # type: ignore[misc]  # vLLM is not installed everywhere
    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        folder = Path(vllm_config.model_config.model)
        self._end_tokens = end_tokens(folder)
        self._tokenizer = _tokenizer(folder, vllm_config.model_config.get_vocab_size(), self._end_tokens)
        self._rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._rows, batch_update, self._row)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        largest = logits.amax(dim=-1).tolist()  # for all rows at once: each look waits for the device
        for index, row in self._rows.items():
            row.check(largest[index], row.masks_before)
            row.apply_biases(logits[index])
        masked = [(index, row) for index, row in self._rows.items() if row.masks]
        largest = logits.amax(dim=-1).tolist() if masked else largest
        for index, row in masked:
            row.check(largest[index], row.masks)
        for index in [index for index, row in self._rows.items() if row.failed]:
            logits[index] = 0.0  # any token is drawn: the engine knows, and gives the job up
        drawing = [(index, row) for index, row in self._rows.items() if not (row.job.sampling.greedy or row.failed)]
        if drawing:
            indices = [index for index, _ in drawing]
            uniforms = [row.uniform() for _, row in drawing]
            rows = logits if indices == list(range(logits.shape[0])) else logits[indices]
            tokens = sample(rows, [row.job.sampling for _, row in drawing], uniforms)
            logits[torch.tensor(indices, device=logits.device), tokens] = torch.inf
        return logits

    def _row(self, params: Any, prompt: list[int] | None, drawn: list[int]) -> "_Row | None":
        described = (params.extra_args or {}).get("job")
        if described is None:
            return None
        assert prompt is not None
        return _Row(msgspec.json.decode(described, type=RowJob), prompt, drawn, self._end_tokens, self._tokenizer)


class _Row:
    """One job in the batch. `drawn` is vLLM's own list: it grows as the job goes on."""

    def __init__(self, job: RowJob, prompt: list[int], drawn: list[int], end_tokens: list[int], tokenizer: LLTokenizer | None) -> None:
        self.job = job
        self._prompt, self._drawn = prompt, drawn
        params = job.sampling
        self._endless = end_tokens if params.ignore_eos else []
        self._ends = end_tokens
        self._matcher = LLMatcher(tokenizer, job.grammar, log_level=0) if job.grammar is not None and tokenizer else None
        self._matched = 0  # tokens of the completion that the matcher has seen
        self._penalises = params.repetition_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0
        self._seen: torch.Tensor | None = None  # (vocabulary,) of prompt and completion
        self._counts: torch.Tensor | None = None  # (vocabulary,) of the completion
        self._counted = 0
        self.failed = False
        self._masks = bool(params.min_tokens or params.ignore_eos or self._matcher)

    @property
    def masks(self) -> list[str]:
        if not self._masks:
            return []
        drawn = len(self._prompt) - self.job.prompt_tokens + len(self._drawn)
        return finite.masks(self.job.sampling, drawn, grammar=self._matcher is not None)

    @property
    def masks_before(self) -> list[str]:
        """Those that vLLM has applied."""
        return [name for name in self.masks if name == "min_tokens"]

    def check(self, largest: float, masks: list[str]) -> None:
        """Of the logits behind these masks. The first time that the job cannot go on the engine is told."""
        if self.failed:
            return
        try:
            finite.check_row(largest, masks)
        except EngineError as error:
            self.failed = True
            send(self.job.reports, Report(self.job.id, masks if isinstance(error, NothingToDraw) else []))

    def uniform(self) -> float:
        """In [0, 1): where in the distribution the next token lies."""
        return mix_seed(self.job.sampling.seed, len(self._prompt) + len(self._drawn)) / 2**32

    def apply_biases(self, logits: torch.Tensor) -> None:
        """Masks and penalties of this job, in place."""
        if self._endless:
            logits[self._endless] = -torch.inf
        if self._matcher:
            self._mask(logits, self._matcher)
        if self._penalises:
            self._apply_penalties(logits)

    def _completion(self, after: int) -> list[int]:
        """Tokens of the completion after the first so many; those a resumed job has drawn before belong to it."""
        resumed = self._prompt[self.job.prompt_tokens :]
        if after >= len(resumed):
            return self._drawn[after - len(resumed) :]
        return resumed[after:] + self._drawn

    def _mask(self, logits: torch.Tensor, matcher: LLMatcher) -> None:
        tokens = self._completion(self._matched)
        self._matched += len(tokens)
        matcher.consume_tokens(tokens)
        bits = matcher.compute_bitmask() if not matcher.is_error() else b""
        allowed = np.zeros(logits.shape[0], dtype=bool)
        mask = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[: logits.shape[0]]
        allowed[: len(mask)] = mask
        if matcher.is_error():  # nothing can follow: the job ends, and the engine's own copy of the grammar tells why
            allowed[self._ends] = True
        logits.masked_fill_(torch.from_numpy(~allowed).to(logits.device, non_blocking=True), -torch.inf)

    def _apply_penalties(self, logits: torch.Tensor) -> None:
        """Repetition counts the prompt too, presence and frequency the completion alone, as vLLM does itself."""
        params = self.job.sampling
        if self._seen is None or self._counts is None:
            self._seen = torch.zeros(logits.shape[0], dtype=torch.bool, device=logits.device)
            self._counts = torch.zeros(logits.shape[0], dtype=torch.float32, device=logits.device)
            self._seen[torch.tensor(self._prompt, device=logits.device)] = True
        if tokens := self._completion(self._counted):
            self._counted += len(tokens)
            new = torch.tensor(tokens, device=logits.device)
            self._seen[new] = True
            self._counts.index_add_(0, new, torch.ones(len(tokens), device=logits.device))
        if params.repetition_penalty != 1:
            factor = torch.where(logits > 0, 1 / params.repetition_penalty, params.repetition_penalty)
            logits.mul_(torch.where(self._seen, factor, 1.0))
        logits.sub_(params.frequency_penalty * self._counts + params.presence_penalty * (self._counts > 0))


def _tokenizer(folder: Path, vocabulary: int, ends: list[int]) -> LLTokenizer | None:
    """For grammars; None where the folder has no tokenizer.json, and no grammar is asked for then."""
    file = folder / "tokenizer.json"
    return LLTokenizer(str(file), n_vocab=vocabulary, eos_token=ends or None) if file.is_file() else None
