"""A device that works on after llama_decode has returned: its time is the step's, and nothing is believed of a batch that it fails on."""

import ctypes
import time

import llama_cpp.llama_cpp as ll
import pytest

from src.engines import load_engine
from src.engines.base import Job
from src.engines.llamacpp import LlamaCppOptions
from src.engines.llamacpp.model import _keep_errors
from src.errors import EngineDead
from src.sampling import SamplingParams

pytestmark = pytest.mark.macos

FAILED = b"ggml_metal_synchronize: error: command buffer 0 failed with status 5\n"
LOG_ERROR = 4


@pytest.fixture
def engine(model_path):
    options = LlamaCppOptions(model_path=str(model_path), context_length=128, max_sequences=2, threads=1, device="cpu")
    engine = load_engine("llama_cpp", options)
    yield engine
    engine.close()


def fail_later(monkeypatch, text: bytes) -> None:
    """As Metal does: its backend logs what went wrong while it is waited for, and llama_decode has returned 0."""
    wait = ll.llama_synchronize

    def synchronize(context) -> None:
        wait(context)
        _keep_errors(LOG_ERROR, text, ctypes.c_void_p())

    monkeypatch.setattr(ll, "llama_synchronize", synchronize)


def test_no_token_is_drawn_from_a_batch_on_which_the_device_failed(engine, monkeypatch):
    engine.add(Job(id=1, tokens=[5, 6, 7], prompt_tokens=3, max_tokens=9, sampling=SamplingParams(seed=1)))
    assert engine.step()[0].token is not None
    fail_later(monkeypatch, FAILED)
    with pytest.raises(EngineDead, match="command buffer 0 failed with status 5"):
        engine.step()


def test_no_vector_is_made_of_one(engine, monkeypatch):
    fail_later(monkeypatch, FAILED)
    with pytest.raises(EngineDead, match="command buffer 0 failed"):
        list(engine.embed([[5, 6, 7]]))


def test_an_error_that_is_logged_elsewhere_ends_nothing(engine, monkeypatch):
    engine.add(Job(id=1, tokens=[5, 6, 7], prompt_tokens=3, max_tokens=9, sampling=SamplingParams(seed=1)))
    fail_later(monkeypatch, b"llama_adapter_lora_init_impl: a file was not found\n")
    assert engine.step()[0].token is not None


def test_a_steps_time_is_the_devices_also_where_nothing_is_read_of_it(engine, monkeypatch):
    """Else prompts would seem to cost nothing, and the step that reads something would pay for all before it."""
    wait, seen = ll.llama_synchronize, []

    def synchronize(context) -> None:
        wait(context)
        time.sleep(0.05)

    monkeypatch.setattr(ll, "llama_synchronize", synchronize)
    monkeypatch.setattr(engine._budget, "observe", lambda decoding, prefilled, seconds, position: seen.append((prefilled, seconds)))
    monkeypatch.setattr(engine._budget, "tokens", lambda *_: 8)
    engine.add(Job(id=1, tokens=list(range(5, 21)), prompt_tokens=16, max_tokens=1, sampling=SamplingParams(seed=1)))
    before = engine.stats().compute_seconds
    assert engine.step()[0].token is None, "half of the prompt"
    [(prefilled, seconds)] = seen
    assert prefilled == 8
    assert seconds >= 0.05
    assert engine.stats().compute_seconds - before >= 0.05
