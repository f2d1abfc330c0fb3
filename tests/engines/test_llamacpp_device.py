"""What llama.cpp computes on where a Mac gives it no GPU: Metal's backend registers one of 0 bytes, as in a virtual machine."""

import sys

import llama_cpp.llama_cpp as ll
import pytest

from src.engines.base import Job
from src.engines.llamacpp import LlamaCppOptions, device
from src.engines.llamacpp.device import DeviceMemory, choose_device
from src.engines.llamacpp.engine import LlamaCppEngine
from src.engines.llamacpp.model import LoadedModel
from src.errors import ModelLoadFailed
from src.sampling import SamplingParams

pytestmark = pytest.mark.macos

GIB = 2**30


@pytest.fixture
def mac(monkeypatch):
    def with_gpu(total: int) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(ll, "llama_supports_gpu_offload", lambda: True)
        monkeypatch.setattr(device, "memory", lambda *kinds: DeviceMemory(total, total))

    return with_gpu


def test_a_gpu_of_no_bytes_is_none(mac, model_path):
    mac(0)
    options = LlamaCppOptions(model_path=str(model_path), context_length=128, max_sequences=1, threads=1)
    engine = LlamaCppEngine(options)
    try:
        assert engine.device == "cpu"
        engine.add(Job(id=1, tokens=[5, 6, 7], prompt_tokens=3, max_tokens=1, sampling=SamplingParams(seed=1)))
        assert engine.step()[0].token is not None
    finally:
        engine.close()


def test_where_it_was_asked_for_the_error_says_so_in_words(mac):
    mac(0)
    with pytest.raises(ModelLoadFailed, match=r"DEVICE_TYPE=mps, but llama.cpp is given no GPU here"):
        choose_device("mps", ll.llama_model_default_params())


@pytest.mark.parametrize("wanted", ["auto", "mps"])
def test_one_with_memory_gets_all_layers_and_llama_cpps_own_list_of_devices(mac, wanted):
    mac(48 * GIB)
    params = ll.llama_model_default_params()
    assert choose_device(wanted, params) == "mps"
    assert (params.n_gpu_layers, params.devices) == (-1, None)


def test_on_a_cpu_no_context_wants_the_gpu(mac):
    """llama.cpp would make one for every GPU that it knows, also for a model without a layer there, and fail where it has no bytes."""
    mac(0)
    params = ll.llama_model_default_params()
    assert choose_device("cpu", params) == "cpu"
    assert params.devices


@pytest.mark.parametrize(("device", "context", "counts"), [("cpu", 1024, [1]), ("mps", 1024, [512, 3]), ("mps", 128, [127, 3])])
def test_a_macs_gpu_compiles_what_prompts_and_streams_need_before_the_first_request(model_path, monkeypatch, device, context, counts):
    computed, compute = [], LoadedModel.compute

    def count(model: LoadedModel, context: object, batch: object) -> None:
        computed.append(batch.n_tokens)
        compute(model, context, batch)

    monkeypatch.setattr(LoadedModel, "compute", count)
    monkeypatch.setattr("src.engines.llamacpp.model.choose_device", lambda wanted, params: device)
    monkeypatch.setattr("src.engines.llamacpp.model.free_memory", lambda *kinds: 48 * GIB)
    engine = LlamaCppEngine(LlamaCppOptions(model_path=str(model_path), context_length=context, max_sequences=3, threads=1))
    try:
        assert computed == counts
        engine.add(Job(id=1, tokens=[0, 0, 0, 6], prompt_tokens=4, max_tokens=1, sampling=SamplingParams(seed=1)))
        [step] = engine.step()
        assert step.cached_tokens == 0, "nothing of it is left"
        assert engine.stats().generated == 1
    finally:
        engine.close()
