"""Every message survives the socket, and whatever is not a message is refused by name, never by a crash."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import protocol
from src.engines.base import EngineStats
from src.errors import TooManyRequests
from src.protocol import (
    AskDownloads,
    AskMetrics,
    AskPlan,
    AskStats,
    AskStatus,
    ChatPrompt,
    Constraint,
    Delta,
    DescribeTokenizer,
    Detokenize,
    Detokenized,
    Download,
    DownloadList,
    DownloadProgress,
    Embed,
    Embedded,
    Ended,
    Failed,
    Finished,
    Generate,
    Load,
    LoadProgress,
    ManagerEvent,
    ManagerRequest,
    Message,
    Metrics,
    ModelPlan,
    ModelReady,
    ModelState,
    ProcessUse,
    ProtocolError,
    Quarantined,
    RequestEnded,
    Resolve,
    RunnerEvent,
    RunnerLoading,
    RunnerReady,
    RunnerReport,
    RunnerRequest,
    RunnerServed,
    RunnerStats,
    ServiceStatus,
    Started,
    Switch,
    Telemetry,
    TextPrompt,
    TokenGaps,
    Tokenize,
    Tokenized,
    TokenizerInfo,
    TokenLogprob,
    TokenPrompt,
    ToolCallDelta,
    Unload,
    Unloaded,
    decode,
    encode,
)
from src.sampling import SamplingParams

SAMPLING = SamplingParams(seed=-(2**63), temperature=0.0, top_p=0.5, top_k=40, min_p=0.1, ignore_eos=True)
ENGINE_STATS = EngineStats(
    running=1,
    waiting=2,
    slots=3,
    kv_used=4,
    kv_total=5,
    longest_wait=0.5,
    admitted=3,
    waited_seconds=2.5,
    prefix_hit=6,
    prefix_asked=7,
    generated=8,
    compute_seconds=1.25,
)
STATS = RunnerStats(engine=ENGINE_STATS, steps=9, step_seconds=1.5, tokens_per_second=9.5)
MODEL = ModelState(name="größe", state="ready", format="gguf", size_bytes=2**40, modified=1, engine="echo", restarts=2, stats=STATS)
USE = ProcessUse(name="runner", pid=7, cpu_percent=12.5, cpu_seconds=3.5, rss_bytes=2**33, threads=3, model="größe")
STATUS = ServiceStatus(
    models=[MODEL], default_model=None, uptime_seconds=1.5, load_on_demand=True, engines={"echo": None, "mlx": "why"}, processes=[USE]
)
UNICODE = 'a\n"\\\u0000\u2028é😀\ufdd0'

MESSAGES = [
    (Generate(prompts=[ChatPrompt(messages=[{"role": "user", "content": UNICODE}])], sampling=SAMPLING, stop=[UNICODE]), RunnerRequest),
    (Generate(prompts=[TextPrompt(text=UNICODE)], sampling=SAMPLING, max_tokens=2**31 - 1), RunnerRequest),
    (Generate(prompts=[TokenPrompt(tokens=[0, 2**31 - 1])], sampling=SamplingParams(seed=2**63 - 1)), RunnerRequest),
    (AskStats(), RunnerRequest),
    (Tokenize(prompt=ChatPrompt(messages=[{"role": "user", "content": UNICODE}]), add_bos=False), RunnerRequest),
    (Tokenized(text=UNICODE, tokens=[1], names=["\ufffd"], context_length=9), RunnerEvent),
    (DescribeTokenizer(key="k"), RunnerRequest),
    (
        TokenizerInfo(kind_of="Tokenizer", bos_text="", eos_text="</s>", chat_template=UNICODE, vocab_size=5, context_length=7),
        RunnerEvent,
    ),
    (Detokenize(tokens=[0, 2**31 - 1]), RunnerRequest),
    (Detokenized(text=UNICODE), RunnerEvent),
    (Embed(prompts=[TextPrompt(text=UNICODE), TokenPrompt(tokens=[1])], dimensions=64), RunnerRequest),
    (Embedded(vector=bytes(range(256))), RunnerEvent),
    (
        Generate(
            prompts=[TextPrompt(text="a")], sampling=SAMPLING, n=2, constraint=Constraint(form="regex", source=UNICODE), resume=[[1], []]
        ),
        RunnerRequest,
    ),
    (Quarantined(open=True), RunnerEvent),
    (Started(prompt_tokens=1, cached_tokens=0, queue_seconds=0.25), RunnerEvent),
    (Delta(text=UNICODE), RunnerEvent),
    (
        Delta(
            index=1,
            reasoning=UNICODE,
            tool_calls=[ToolCallDelta(index=0, id="call_1", name=UNICODE, arguments="{}"), ToolCallDelta(index=0, arguments=UNICODE)],
            logprobs=[TokenLogprob(token="a", logprob=-0.5, bytes=[97], top=[TokenLogprob(token="b", logprob=-1, bytes=[98])])],
            tokens=[1, 2],
        ),
        RunnerEvent,
    ),
    (Ended(index=2, reason="tool_calls"), RunnerEvent),
    (Finished(prompt_tokens=1, completion_tokens=2, cached_tokens=0), RunnerEvent),
    (Failed(status=429, type="rate_limit_error", code=None, message=UNICODE, path=("tools", 2, "n"), retry_after=1), RunnerEvent),
    (STATS, RunnerEvent),
    (RunnerReady(context_length=4096, device="cpu", engine_version="1.0", load_seconds=0.5), RunnerReport),
    (RunnerServed(), RunnerServed),
    (RunnerLoading(stage="warming_up"), RunnerReport),
    (RunnerServed(), RunnerServed),
    (Quarantined(open=True), RunnerEvent),
    (Failed(status=500, type="server_error", code="internal_error", message="no"), RunnerReport),
    (Resolve(model=None), ManagerRequest),
    (Load(model=UNICODE), ManagerRequest),
    (Unload(model=UNICODE), ManagerRequest),
    (Switch(model=UNICODE, before=None), ManagerRequest),
    (AskPlan(model=UNICODE), ManagerRequest),
    (Download(source="pypi", repo="x", name=UNICODE, include=["*"]), ManagerRequest),
    (AskDownloads(), ManagerRequest),
    (DownloadProgress(name="x", repo="a/x", source="modelscope", stage="failed", reason=UNICODE), ManagerEvent),
    (DownloadList(downloads=[DownloadProgress(name="x", repo="a/x", source="modelscope", stage="done")]), ManagerEvent),
    (AskStatus(detail=True), ManagerRequest),
    (ModelReady(model="größe", socket="/tmp/x.sock", engine="echo", fingerprint="fp_1", sampling={"temperature": 0.5}), ManagerEvent),
    (LoadProgress(model="größe", stage="reading_weights", bytes_read=1, bytes_total=2**40), ManagerEvent),
    (Unloaded(model=UNICODE), ManagerEvent),
    (ModelPlan(model="größe", fits=False, engines={"mlx": "why", "vllm": None}, reason=UNICODE), ManagerEvent),
    (STATUS, ManagerEvent),
    (AskMetrics(), ManagerRequest),
    (Metrics(text=UNICODE), ManagerEvent),
    (TokenGaps(model=UNICODE, seconds=[0.5, 0.000001]), Telemetry),
    (RequestEnded(route="POST /x", status=200, seconds=1.5, model=UNICODE, endings=["stop"]), Telemetry),
]
HELLO = encode(Delta(text="hello"))


@pytest.mark.parametrize(("message", "kind"), MESSAGES, ids=lambda value: type(value).__name__ if isinstance(value, Message) else "")
def test_a_message_survives_the_socket_as_one_line(message, kind):
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line, kind) == message


def test_a_models_default_top_k_survives_the_way_to_the_gateway_and_to_the_runner():
    """Qwen's and Gemma's makers recommend one. As a float, which equals the integer, it was refused by the runner."""
    ready = decode(encode(ModelReady(model="m", socket="s", engine="e", fingerprint="f", sampling={"top_k": 20, "top_p": 1})), ManagerEvent)
    assert isinstance(ready, ModelReady)
    request = Generate(prompts=[TextPrompt(text="hi")], sampling=SamplingParams(seed=1, **ready.sampling), max_tokens=1)
    received = decode(encode(request), RunnerRequest)
    assert isinstance(received, Generate)
    assert received.sampling.top_k == 20


def test_every_message_is_tried_above():
    kinds = {kind for kind in vars(protocol).values() if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message}
    nested = {ChatPrompt, TextPrompt, TokenPrompt, Constraint, ModelState, ProcessUse}  # parts of others
    assert {type(message) for message, _ in MESSAGES} | nested == kinds


def test_the_tag_is_the_name_of_the_class():
    assert msgspec.json.decode(HELLO) == {"kind": "Delta", "text": "hello"}


numbers = st.floats(0, 2, allow_nan=False)
messages = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": st.none() | st.text()}))
prompts = (
    st.builds(ChatPrompt, messages=messages)
    | st.builds(TextPrompt, text=st.text())
    | st.builds(TokenPrompt, tokens=st.lists(st.integers(0, 2**31 - 1)))
)
sampling = st.builds(
    SamplingParams,
    seed=st.integers(-(2**63), 2**63 - 1),
    temperature=numbers,
    top_p=numbers,
    top_k=st.integers(0, 2**31 - 1),
    presence_penalty=numbers,
    ignore_eos=st.booleans(),
)


@given(prompts, sampling, st.none() | st.integers(1, 2**31 - 1), st.lists(st.text(min_size=1)))
def test_any_request_to_generate_survives_the_socket(prompt, sampling, max_tokens, stop):
    request = Generate(prompts=[prompt], sampling=sampling, max_tokens=max_tokens, stop=stop)
    assert decode(encode(request), RunnerRequest) == request


@pytest.mark.parametrize("length", range(len(HELLO) - 1))
def test_a_line_cut_anywhere_is_refused(length):
    with pytest.raises(ProtocolError):
        decode(HELLO[:length] + b"\n", RunnerEvent)


def test_a_message_without_its_end_of_line_is_refused():
    with pytest.raises(ProtocolError, match="middle of a message"):
        decode(HELLO[:-1], RunnerEvent)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"GET / HTTP/1.1\r\n",
        b"\x00\xff\xfe\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b'{"text":"no tag"}\n',
        b'{"kind":"Nothing","text":""}\n',
        b'{"kind":5,"text":""}\n',
        b'{"kind":"Load","model":"of another socket"}\n',
        b'{"kind":"Ended"}\n',
        b'{"kind":"Delta","text":5}\n',
        b'{"kind":"Delta","text":null}\n',
        b'{"kind":"Delta","text":"","more":1}\n',
        b'{"kind":"Delta","text":"\\ud800"}\n',
        b'{"kind":"Delta","text":"\xed\xa0\x80"}\n',
        b'{"kind":"Delta","text":"a"} {"kind":"Delta","text":"b"}\n',
        b'{"kind":"Started","prompt_tokens":' + b"9" * 5000 + b',"cached_tokens":0,"queue_seconds":0}\n',
        b'{"kind":"Started","prompt_tokens":1,"cached_tokens":0,"queue_seconds":NaN}\n',
        b"[" * 100_000 + b"\n",
        b'{"kind":"Delta","text":' + b"[" * 100_000 + b"\n",
        b'{"a":' * 100_000 + b"\n",
    ],
    ids=range(22),
)
def test_what_is_not_a_message_is_refused(line):
    with pytest.raises(ProtocolError):
        decode(line, RunnerEvent)


def test_messages_nested_too_deep_are_refused():
    prompt = b'{"kind":"ChatPrompt","messages":[{"role":' + b"[" * 100_000
    with pytest.raises(ProtocolError):
        decode(b'{"kind":"Generate","prompt":' + prompt + b"\n", RunnerRequest)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data):
    with pytest.raises(ProtocolError):
        decode(data + b"\n", RunnerRequest)


def test_a_failure_carries_all_that_a_client_is_told():
    error = TooManyRequests("too many", "n", retry_after=3)
    told = Failed.of(error).error()
    assert told.body() == error.body()
    assert (told.status, told.retry_after, str(told)) == (429, 3, "too many")
