"""What fits is planned from a model's own facts; what does not is refused with numbers and with what would."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.catalog import Facts
from src.errors import ModelDoesNotFit
from src.manager import memory
from src.manager.memory import GIB, Fit, Memory, available, cgroup_limit, fit, need

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
    two = need(memory.several(LLAMA, 2), 4096, 20)
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
    less = available("cpu", 2 * GIB, promised=GIB)
    assert abs(all_of_it.free - less.free - 3 * GIB) < GIB // 4
    assert (all_of_it.kind, all_of_it.total == less.total) == ("ram", True)


def test_files_that_a_runner_has_mapped_are_not_free():
    mapped = memory.mapped_bytes(os.getpid())
    assert mapped > 2**20
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
