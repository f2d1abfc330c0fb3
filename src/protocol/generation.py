"""What a gateway asks a runner, the events that answer it, and what a runner reports to the manager. Knows no HTTP.

A request for text has `n` choices for each of its prompts, numbered prompt by prompt. Its events: one Started, for each
choice Deltas and one Ended, and one Finished; or Failed, which ends it at any time.
"""

from typing import Any, Literal

import msgspec

from src.engines.base import EngineStats, KVCacheChoice
from src.errors import FieldPath
from src.protocol.lines import Failed, Message
from src.sampling import SamplingParams

# Requests


class ChatPrompt(Message, frozen=True, kw_only=True):
    """Messages for the model's chat template: {"role": str, "content": str | None, ...} each."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []  # OpenAI's objects; those that may be called
    deferred_tools: list[str] = []  # names of those that the template is not shown
    must_call: bool = False
    only_tool: str | None = None  # the name of the one that may be called
    parallel_calls: bool = True  # more than one call is allowed
    variables: dict[str, Any] = {}  # for the template
    reasoning_effort: str | None = None
    generation_prompt: bool = True  # the prompt ends where the assistant's answer begins
    continued: bool = False  # the answer goes on with the last message


class TextPrompt(Message, frozen=True, kw_only=True):
    text: str
    suffix: str | None = None  # the answer is to fill the gap between the text and this


class TokenPrompt(Message, frozen=True, kw_only=True):
    tokens: list[int]


class Constraint(Message, frozen=True, kw_only=True):
    """What the answer has to be. `source`: a JSON schema as JSON, a regular expression, a JSON list of texts, a Lark grammar."""

    form: Literal["json_schema", "regex", "choice", "lark"]
    source: str
    param: str = "response_format"  # what a refusal names


class Generate(Message, frozen=True, kw_only=True):
    prompts: list[ChatPrompt | TextPrompt | TokenPrompt]
    sampling: SamplingParams  # of the first choice; the seed of each further one is one more
    n: int = 1
    max_tokens: int | None = None  # None: up to the end of the context
    key: str = ""  # who asks, for fair shares: the API key's name, never the key; where there are none, the client's address
    adapter: str = ""  # one of the model's, by its name
    stop: list[str] = []
    include_stop: bool = False  # the stop string is a part of the answer
    constraint: Constraint | None = None
    echo: bool = False  # the prompt's text comes first
    resume: list[list[int]] = []  # tokens that are known already, a list for each choice: their text is not sent again
    crashes: int = 0  # of runners that ended while this request was with them


class Tokenize(Message, frozen=True, kw_only=True):
    prompt: ChatPrompt | TextPrompt
    add_bos: bool = True  # where the model wants one and the prompt does not begin with it
    names: bool = False  # tell the tokens' names too
    key: str = ""


class Detokenize(Message, frozen=True, kw_only=True):
    tokens: list[int]
    key: str = ""


class DescribeTokenizer(Message, frozen=True, kw_only=True):
    key: str = ""


class Embed(Message, frozen=True, kw_only=True):
    """Answered by an Embedded for each prompt, in their order, and Finished."""

    prompts: list[TextPrompt | TokenPrompt]
    dimensions: int | None = None  # None: as many as the model has
    key: str = ""


class AskStats(Message, frozen=True, kw_only=True):
    pass


# Events


class Started(Message, frozen=True, kw_only=True):
    """The first job has a place in the batch. The gateway commits to 200 only when it sees this."""

    prompt_tokens: int  # of all prompts
    cached_tokens: int  # of the first
    ignored: list[FieldPath] = []  # fields of the request that have no effect on this model
    queue_seconds: float  # from the request's arrival to the beginning of the first step on it, which computes prompt tokens


class Quarantined(Message, frozen=True, kw_only=True):
    """A request that a runner has died of before, perhaps, is computed from now on; no other such one is until it has
    shown that it is harmless (open=False). So a runner's next death tells whose fault it is."""

    open: bool


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A token's text, its bytes, and its natural logarithm of probability by the model, before any sampling rule."""

    token: str
    logprob: float
    bytes: list[int]
    top: list["TokenLogprob"] = []  # the likeliest at this place, in order
    offset: int = 0  # characters of the answer that precede the one it begins in


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """The first of a call has its id and name; further ones are pieces of its arguments' JSON."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Delta(Message, frozen=True, kw_only=True):
    """What a choice says now. Its text is final: no stop string can begin in it."""

    index: int = 0  # of the choice
    text: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCallDelta] = []
    logprobs: list[TokenLogprob] = []
    tokens: list[int] = []  # drawn since the last Delta of this choice: with all before them, what `resume` needs
    last: bool = False  # the choice's Ended follows


class Ended(Message, frozen=True, kw_only=True):
    index: int = 0
    reason: str  # stop, length, tool_calls
    stop: str | None = None  # the stop string that ended it


class Finished(Message, frozen=True, kw_only=True):
    """All choices have ended. Tokens and seconds of all of them together; a prompt counts once for all its choices."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int = 0
    prefill_seconds: float = 0.0  # from that step's beginning to the first token
    decode_seconds: float = 0.0  # from the first token to the last


class Tokenized(Message, frozen=True, kw_only=True):
    text: str  # of a chat: what the template made of it
    tokens: list[int]
    names: list[str] = []  # of the tokens, where they were asked for
    ignored: list[FieldPath] = []  # as in Started
    context_length: int


class Detokenized(Message, frozen=True, kw_only=True):
    text: str


class TokenizerInfo(Message, frozen=True, kw_only=True):
    kind_of: str  # the tokenizer's class here
    bos_text: str  # "" where there is none
    eos_text: str
    chat_template: str | None  # Jinja source
    vocab_size: int
    context_length: int


class Embedded(Message, frozen=True, kw_only=True):
    vector: bytes  # of length 1; 32-bit floats, the lowest byte first


class RunnerStats(Message, frozen=True, kw_only=True):
    """A runner's work at this moment. The engine's `running` and `waiting` count open requests here: one without a place waits, be
    it for its prompt to be encoded."""

    engine: EngineStats
    resumed: int = 0  # requests that went on here when the runner before had ended
    preempted: int = 0  # sequences that were set aside for another key's
    invalid_outputs: int = 0  # sequences and inputs for which the model computed NaN or infinite numbers
    steps: int  # since the model was loaded
    step_seconds: float  # of the engine thread: steps and what it does between them
    step_age: float = 0.0  # seconds since the step that is being computed began; 0 where none is
    tokens_per_second: float  # completion tokens over the last seconds


class RunnerLoading(Message, frozen=True, kw_only=True):
    """A line that a runner prints on its way. stage: warming_up."""

    stage: str


class RunnerServed(Message, frozen=True, kw_only=True):
    """The last line a runner prints: it has answered a first request."""


class RunnerReady(Message, frozen=True, kw_only=True):
    """The line a runner prints once it can serve."""

    context_length: int
    device: str
    engine_version: str
    load_seconds: float
    embedding_length: int = 0  # 0: it cannot embed
    kv_cache: KVCacheChoice | None = None


RunnerRequest = Generate | Tokenize | Detokenize | DescribeTokenizer | Embed | AskStats
GenerateEvent = Quarantined | Started | Delta | Ended | Finished  # beside Failed
RunnerEvent = GenerateEvent | Tokenized | Detokenized | TokenizerInfo | Embedded | Failed | RunnerStats
RunnerReport = RunnerLoading | RunnerReady | Failed
