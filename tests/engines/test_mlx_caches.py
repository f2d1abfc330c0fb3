"""Models whose caches are no plain KV caches, small and of random weights: sliding windows, recurrent states, both kinds mixed."""

import json

import pytest

mx = pytest.importorskip("mlx.core", reason="MLX is not installed here")

from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.generate import generate_step  # noqa: E402
from mlx_lm.utils import _get_classes  # noqa: E402

from src.engines import load_engine  # noqa: E402
from src.engines.base import Job  # noqa: E402
from src.engines.mlx import MLXOptions  # noqa: E402
from src.engines.mlx.model import LoadedModel  # noqa: E402
from src.sampling import SamplingParams  # noqa: E402

VOCABULARY = 300
COMMON = {"vocab_size": VOCABULARY, "hidden_size": 64, "max_position_embeddings": 1024}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4}
CONFIGS = {
    "gemma3_text": {
        **HEADS, "head_dim": 16, "intermediate_size": 128, "rms_norm_eps": 1e-6, "sliding_window": 32, "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 16, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
    },
    "lfm2": {
        **HEADS, "norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3, "block_dim": 64, "block_ff_dim": 128, "block_multiple_of": 16,
        "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": True, "full_attn_idxs": [1, 3], "rope_theta": 1e6,
    },
    "mamba": {
        "num_hidden_layers": 2, "intermediate_size": 128, "state_size": 8, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True,
        "time_step_rank": 4,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    config = {"model_type": request.param, **COMMON, **CONFIGS[request.param]}
    kind, arguments = _get_classes(config)[:2]
    mx.random.seed(3)
    parameters = tree_flatten(kind(arguments.from_dict(config)).parameters())
    weights = {name: mx.random.normal(array.shape) * 0.3 if array.ndim > 1 else array for name, array in parameters}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    folder.joinpath("config.json").write_text(json.dumps(config))
    return folder


def options(folder, **changes) -> MLXOptions:
    values = {"model_path": str(folder), "context_length": 512, "max_sequences": 4, "cached_prefixes": 4, "device": "cpu"}
    return MLXOptions(**{**values, **changes})


@pytest.fixture(scope="module")
def engine(folder):
    engine = load_engine("mlx", options(folder))
    yield engine
    engine.close()


def words(start: int, length: int) -> list[int]:
    return [(start * 37 + index * 11) % VOCABULARY for index in range(length)]


def job(id: int, tokens: list[int], max_tokens: int = 12) -> Job:
    sampling = SamplingParams(seed=1, temperature=0.0, ignore_eos=True)
    return Job(id=id, tokens=tokens, prompt_tokens=len(tokens), max_tokens=max_tokens, sampling=sampling)


def run(engine, *jobs: Job) -> tuple[list[list[int]], list[int]]:
    """What the jobs drew, and how much of each prompt was cached."""
    for one in jobs:
        engine.add(one)
    drawn, cached = {one.id: [] for one in jobs}, {}
    while steps := engine.step():
        for step in steps:
            if step.job_id in drawn and step.token is not None:
                drawn[step.job_id].append(step.token)
            if step.cached_tokens is not None:
                cached[step.job_id] = step.cached_tokens
    return list(drawn.values()), [cached[id] for id in drawn]


def expected(engine, tokens: list[int], count: int = 12) -> list[int]:
    """mlx-lm's own, one sequence at a time."""
    return [token for token, _ in generate_step(mx.array(tokens), engine._model.model, max_tokens=count)]


def test_prompts_of_all_lengths_in_one_batch_are_answered_as_alone(engine):
    prompts = [words(1, 20), words(2, 60), words(3, 100), words(4, 5)]
    drawn, _ = run(engine, *(job(id, prompt) for id, prompt in enumerate(prompts)))
    assert drawn == [expected(engine, prompt) for prompt in prompts]


def test_a_cache_is_used_only_where_it_is_right(engine):
    engine._prefixes.clear()
    first = words(5, 60)
    (drawn,), _ = run(engine, job(0, first))
    (again,), cached = run(engine, job(0, first))
    assert (again, cached) == (drawn, [0]), "what it holds beyond the prompt cannot be cut off"
    longer = first + drawn + words(6, 8)
    (drawn,), cached = run(engine, job(0, longer))
    assert drawn == expected(engine, longer)
    assert cached == [72], "the whole conversation so far"


@pytest.mark.parametrize("shared", [20, 80])
def test_jobs_that_share_a_prefix_are_answered_as_alone(engine, shared):
    prompts = [words(7, shared) + words(20 + id, 8) for id in range(4)]
    drawn, cached = run(engine, *(job(id, prompt) for id, prompt in enumerate(prompts)))
    assert drawn == [expected(engine, prompt) for prompt in prompts]
    assert cached[1:] == [shared if shared < engine._model.cuttable else 0] * 3


def test_what_a_cancelled_job_leaves_behind_is_right(engine):
    first = words(8, 100)
    engine.add(job(1, first, 60))
    engine.add(job(2, words(9, 40), 20))
    for _ in range(6):
        engine.step()
    engine.cancel(1)
    longer = first + words(10, 3)
    (drawn,), _ = run(engine, job(3, longer))
    assert drawn == expected(engine, longer)


@pytest.mark.parametrize(
    ("device", "context", "sequences", "shapes"),
    [
        ("cpu", 1024, 4, [(1, 1)]),
        ("mps", 1024, 4, [(1, 1), (1, 512), (1, 1), (4, 1)]),
        ("mps", 512, 1, [(1, 1), (1, 511)]),
    ],
)
def test_a_macs_gpu_has_the_kernels_of_prompts_and_streams_before_the_first_request(
    folder, monkeypatch, device, context, sequences, shapes
):
    kind = _get_classes(json.loads((folder / "config.json").read_text()))[0]
    computed, compute = [], kind.__call__

    def count(model: object, tokens: mx.array, **fields: object) -> mx.array:
        computed.append(tuple(tokens.shape))
        return compute(model, tokens, **fields)

    monkeypatch.setattr(kind, "__call__", count)
    monkeypatch.setattr("src.engines.mlx.model._choose_device", lambda wanted: device)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 8 * 2**30})
    model = LoadedModel(options(folder, context_length=context, max_sequences=sequences))
    assert computed == shapes
    model.close()
