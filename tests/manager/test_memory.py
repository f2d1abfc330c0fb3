"""What fits is planned from a model's own facts; what does not is refused with numbers and with what would."""

import os
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.catalog import Facts
from src.engines.base import Footprint
from src.errors import ModelDoesNotFit
from src.manager import memory, metal
from src.manager.memory import GIB, Fit, Memory, Taken, available, cgroup_limit, fit, need

pytestmark = pytest.mark.macos

# Llama 3 8B, Q4_K_M.
LLAMA = Facts(
    context_length=8192,
    weight_bytes=int(4.6 * GIB),
    kv_bytes_per_token=32 * 8 * 256 * 2,
    vocabulary=128_256,
    embedding_length=4096,
    feed_forward_length=14_336,
)


def ram(free_gib: float) -> Memory:
    return Memory("ram", 64 * GIB, int(free_gib * GIB), GIB // 2)


def test_the_kv_cache_is_sequences_times_tokens():
    assert need(LLAMA, 4096, 20).kv_cache == 20 * 4096 * 131_072
    assert need(LLAMA, 4096, 20).weights == LLAMA.weight_bytes
    assert need(LLAMA, 4096, 20).total == sum(need(LLAMA, 4096, 20))


def test_copies_have_weights_and_sequences_of_their_own():
    two = need(LLAMA, 4096, 20, Footprint(copies=2))
    assert (two.weights, two.kv_cache) == (2 * LLAMA.weight_bytes, need(LLAMA, 4096, 40).kv_cache)


def test_recurrent_states_count_by_the_sequence():
    assert need(Facts(state_bytes=100), 4096, 20).kv_cache == 2000


def test_open_settings_take_a_share_of_what_is_free():
    assert fit("m", LLAMA, ram(50), 0, 0)[:2] == (4096, 20)
    assert fit("m", LLAMA, ram(20), 0, 0)[:2] == (4096, 8), "a fifth of 20 GiB in sequences of half a GiB"


def test_open_settings_shrink_till_they_fit():
    assert fit("m", LLAMA, ram(6), 0, 0)[:2] == (4096, 1)
    assert fit("m", LLAMA, ram(5.3), 0, 0)[:2] == (1024, 1)


def test_settings_that_are_given_are_kept():
    assert fit("m", LLAMA, ram(50), 8192, 3)[:2] == (8192, 3)
    assert fit("m", LLAMA, ram(50), 100_000, 3)[:2] == (8192, 3), "no longer than what it was trained for"


def test_what_does_not_fit_is_refused_with_numbers_and_how_many_sequences_would():
    with pytest.raises(ModelDoesNotFit) as error:
        fit("llama", LLAMA, ram(10), 8192, 20)
    told = str(error.value)
    assert told.startswith("llama needs 25.")
    assert "weights 4.6, KV cache 20.0 for 20 × 8192 tokens" in told
    assert "10.0 GiB are free beside the reserve of 0.5 (MEMORY_RESERVE)" in told
    assert told.endswith("MAX_PARALLEL_SEQUENCES=4 would fit.")
    assert fit("llama", LLAMA, ram(10), 8192, 4).sequences == 4


def test_where_not_one_sequence_fits_the_context_that_would_is_told():
    with pytest.raises(ModelDoesNotFit, match=r"CONTEXT_LENGTH=\d+ with MAX_PARALLEL_SEQUENCES=1 would fit"):
        fit("llama", LLAMA, ram(5.6), 8192, 2)


def test_where_the_weights_alone_do_not_fit_that_is_told():
    with pytest.raises(ModelDoesNotFit, match="Not even one short sequence would fit"):
        fit("llama", LLAMA, ram(4), 0, 0)


@given(st.floats(0, 80), st.sampled_from([0, 512, 4096, 8192]), st.sampled_from([0, 1, 20, 200]))
def test_whatever_fits_is_within_what_is_free(free_gib, context_length, sequences):
    try:
        found = fit("m", LLAMA, ram(free_gib), context_length, sequences)
    except ModelDoesNotFit:
        return
    assert found.need.total <= ram(free_gib).free
    assert found == Fit(found.context_length, found.sequences, need(LLAMA, found.context_length, found.sequences))


def test_a_model_that_says_nothing_of_itself_is_loaded_with_the_defaults():
    assert fit("m", Facts(weight_bytes=GIB), ram(4), 0, 0)[:2] == (4096, 20)


# What there is


def test_what_loading_models_will_take_and_a_reserve_are_not_free():
    all_of_it = available("cpu", 0)
    less = available("cpu", 2 * GIB, Taken(promised=GIB))
    assert abs(all_of_it.free - less.free - 3 * GIB) < GIB // 4
    assert (all_of_it.kind, all_of_it.total == less.total) == ("ram", True)


def test_files_that_a_runner_has_mapped_are_not_free():
    told = hasattr(psutil.Process().memory_info(), "shared")  # macOS tells nothing of it
    assert (memory.mapped_bytes(os.getpid()) > 2**20) == told
    assert memory.private_bytes(os.getpid()) > 2**20
    assert memory.mapped_bytes(2**30) == memory.private_bytes(2**30) == 0, "no such process"


def group(root, path: str, limit: str, used: int, files: int) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(limit + "\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {files}\nactive_file {files}\n")


def test_the_tightest_control_group_counts(tmp_path):
    group(tmp_path, "a", "1000", 500, 100)
    group(tmp_path, "a/b", "max", 400, 0)
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    assert cgroup_limit(tmp_path, own) == (1000, 300)
    group(tmp_path, "a/b", "600", 400, 50)
    assert cgroup_limit(tmp_path, own) == (600, 300)


def test_without_a_control_group_there_is_no_limit(tmp_path):
    own = tmp_path / "own"
    assert cgroup_limit(tmp_path, own) is None
    own.write_text("5:memory:/x\n")
    assert cgroup_limit(tmp_path, own) is None
    own.write_text("0::/\n")
    assert cgroup_limit(tmp_path, own) is None


def test_a_gpu_is_asked_by_its_driver(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "81559, 80000"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert available("cuda", GIB)[:3] == ("cuda", 81559 * 2**20, 80000 * 2**20 - GIB)
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert available("cuda", 0).free == 0


# A Mac's. Each model as its makers give it: layers, heads of keys and values, and how long a head is.

MACS = [
    # GiB of the machine, bytes of weights, bytes of a token's keys and values; the sequences that fit into Metal's three quarters
    pytest.param(64, 42.5e9, 80 * 8 * 128 * 4, 6, id="70B Q4_K_M"),
    pytest.param(48, 34.8e9, 64 * 8 * 128 * 4, 3, id="32B Q8_0"),
    pytest.param(48, 32.5e9, 48 * 4 * 128 * 4, 13, id="30B-A3B Q8_0"),
    pytest.param(96, 42.5e9, 80 * 8 * 128 * 4, 11, id="70B Q4_K_M on a larger one"),
]


@pytest.fixture
def mac(monkeypatch):
    def of(total: int, working_set: int, free: int | None = None, available: int = 0) -> None:
        monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=total, available=available))
        monkeypatch.setattr(metal, "free_bytes", lambda total: free)
        monkeypatch.setattr(metal, "working_set", lambda: working_set)

    return of


@pytest.mark.parametrize(("gib", "weights", "token", "sequences"), MACS)
def test_what_is_planned_for_a_mac_fits_into_what_metal_lets_programs_use(mac, gib, weights, token, sequences):
    mac(gib * GIB, gib * GIB * 3 // 4, free=(gib - 4) * GIB)
    facts = Facts(context_length=131_072, weight_bytes=int(weights), kv_bytes_per_token=token, vocabulary=151_936, embedding_length=5120)
    room = available("mps", GIB // 2)
    planned = fit("m", facts, room, 0, 0)
    assert planned[:2] == (4096, sequences)
    assert planned.need.weights + planned.need.kv_cache < gib * GIB * 3 // 4


def test_other_models_count_by_what_they_are_expected_to_take(mac):
    mac(64 * GIB, 48 * GIB, free=60 * GIB)
    assert available("mps", GIB, Taken(expected=20 * GIB, promised=20 * GIB)).free == 28 * GIB
    assert available("mps", GIB, Taken(expected=20 * GIB), working_set_share=0.75).free == 16 * GIB


def test_other_programs_count_where_they_leave_less_than_metal(mac):
    mac(64 * GIB, 48 * GIB, free=30 * GIB)
    assert available("mps", GIB) == Memory("unified", 64 * GIB, 29 * GIB, GIB)


def test_where_neither_metal_nor_vm_stat_can_be_asked_the_systems_figure_counts(mac):
    mac(64 * GIB, 0, available=40 * GIB)
    assert available("mps", GIB, Taken(promised=10 * GIB)).free == 29 * GIB


VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            900000.
Pages inactive:                          880000.
Pages speculative:                         5000.
Pages throttled:                              0.
Pages wired down:                        300000.
Pages purgeable:                          20000.
"Translation faults":                1234567890.
Pages copy-on-write:                   12345678.
File-backed pages:                       800000.
Anonymous pages:                         985000.
Pages stored in compressor:              700000.
Pages occupied by compressor:            200000.
"""


def test_files_that_a_mac_has_in_its_cache_are_free():
    used = (300_000 + 985_000 - 20_000 + 200_000) * 16_384
    assert metal.parse_vm_stat(VM_STAT, 64 * GIB) == 64 * GIB - used


@pytest.mark.parametrize("text", ["", "Pages wired down: 3.", VM_STAT.replace("Anonymous pages", "Anonyme Seiten")])
def test_what_is_not_vm_stats_text_tells_nothing(text):
    assert metal.parse_vm_stat(text, 64 * GIB) is None


def test_where_there_is_no_metal_there_is_no_working_set():
    metal.working_set.cache_clear()
    assert metal.working_set() == 0
