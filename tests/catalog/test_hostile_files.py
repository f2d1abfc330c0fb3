"""Whatever lies in the models folder, a scan tells what is wrong with it, in bounded time and memory, and lists the others."""

import json
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.catalog import Catalog, ModelEntry, gguf
from src.catalog.facts import BrokenModel, NotAModel
from src.catalog.gguf import MAX_TEXTS, facts, read_header
from src.protocol import ModelState, encode
from src.settings import ROOT
from tests.catalog.test_gguf_header import LLAMA, MALFORMED, head
from tests.support.fuzz import EXAMPLES
from tests.support.model_files import gguf_bytes, safetensors_bytes, text, typed
from tests.support.peak import Peak

WHOLE = gguf_bytes({**LLAMA, "tokenizer.ggml.tokens": ["a", "bc"], "list": [1, 2], "f": 1.5, "t": True}, {"a": (32, 4), "b": (7,)})
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_attention_heads": 8}
HUGE = 2**63


def tensor(shape: object, begin: object, end: object, kind: object = "F32") -> dict:
    return {"w": {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}}


def header(content: object, data: bytes = b"\0" * 64) -> bytes:
    encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


GGUFS = {
    **MALFORMED,
    "nothing": b"",
    "the magic alone": b"GGUF",
    "another magic": b"GGML" + WHOLE[4:],
    "the same key twice": head(0, 2, (text("k") + typed(1)) * 2),
    "a key of 70,000 bytes": head(0, 1, text("k" * 70_000) + typed(1)),
    "type 255": head(0, 1, text("k") + struct.pack("<I", 255) + b"x" * 100),
    "array of type 255": head(0, 1, text("k") + struct.pack("<IIQ", 9, 255, 4) + b"x" * 100),
    "sizes that multiply to zero": head(1, 0, text("t") + struct.pack("<IQQQIQ", 3, HUGE, HUGE, 0, 0, HUGE)),
    "a file type that is a list": gguf_bytes({**LLAMA, "general.file_type": [1, 2]}),
    "an architecture of a megabyte": gguf_bytes({**LLAMA, "general.architecture": "a" * 1_000_000}),
    "numbers that are texts": gguf_bytes({**LLAMA, **dict.fromkeys(list(LLAMA)[1:], "7")}),
    "the largest numbers": gguf_bytes({**LLAMA, **dict.fromkeys(list(LLAMA)[1:], 2**31 - 1)}),
    "heads without end": gguf_bytes({**LLAMA, "llama.attention.head_count_kv": [2**31] * 4000}),
}
FOLDERS = {
    "a header longer than the file": ({}, header({})[:4] + b"\xff" * 4),
    "a header that is no JSON": (CONFIG, header(b"{" * 60_000)),
    "a header that is a list": (CONFIG, header([])),
    "a tensor behind the end": (CONFIG, header(tensor([16], 0, 10**9))),
    "a tensor before the beginning": (CONFIG, header(tensor([16], -64, 0))),
    "a tensor of a negative size": (CONFIG, header(tensor([-16], 0, 64))),
    "a tensor larger than its bytes": (CONFIG, header(tensor([2**62, 2**62], 0, 64))),
    "a tensor of two hundred thousand dimensions": (CONFIG, header(tensor([2**62] * 200_000, 0, 64, "X"))),
    "a type without a name": (CONFIG, header(tensor([16], 0, 64, ""))),
    "a type that is a number": (CONFIG, header(tensor([16], 0, 64, 7))),
    "offsets that are texts": (CONFIG, header(tensor([16], "0", "64"))),
    "a config of a list": ([], safetensors_bytes()),
    "a config nested without end": (b"[" * 200_000, safetensors_bytes()),
    "a config with a number of 5,000 digits": (b'{"hidden_size": ' + b"9" * 5000 + b"}", safetensors_bytes()),
    "a config of twenty megabytes": (b'{"a": "' + b"x" * 20_000_000 + b'"}', safetensors_bytes()),
    "half a surrogate": (b'{"model_type": "\\ud800", "quantization_config": {"quant_method": "\\udfff"}}', safetensors_bytes()),
    "numbers of all kinds": (
        {**CONFIG, "hidden_size": 1e999, "num_hidden_layers": True, "num_attention_heads": 0, "vocab_size": [], "head_dim": -1},
        safetensors_bytes(),
    ),
    "the largest numbers of a config": (
        {**CONFIG, **dict.fromkeys(["num_hidden_layers", "num_attention_heads", "head_dim"], 2**31 - 1)},
        safetensors_bytes(),
    ),
    "bits that are a text": ({**CONFIG, "quantization": {"bits": "x" * 10**6}}, safetensors_bytes()),
    "bits without end": ({**CONFIG, "quantization": {"bits": 10**300}}, safetensors_bytes()),
    "lengths without end": ({**CONFIG, "matryoshka_dimensions": [10**300] * 10_000}, safetensors_bytes()),
    "lengths by the thousand": ({**CONFIG, "matryoshka_dimensions": [1] * 10_000}, safetensors_bytes()),
    "names without end": ({**CONFIG, "model_type": "x" * 10**6, "architectures": [None, 7, {}]}, safetensors_bytes()),
}  # fmt: skip


def put_folder(folder: Path, config: object, weights: bytes, **files: object) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(config if isinstance(config, bytes) else json.dumps(config).encode())
    (folder / "model.safetensors").write_bytes(weights)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def fill(root: Path) -> dict[str, ModelEntry]:
    """All of the above beside a good file; what a scan says of it."""
    for name, content in GGUFS.items():
        (root / name).mkdir()
        (root / name / "model.gguf").write_bytes(content)
    for name, (config, weights) in FOLDERS.items():
        put_folder(root / name.strip() / "inner", config, weights)
    index = "model.safetensors.index"
    put_folder(root / "shards missing", CONFIG, safetensors_bytes(), **{index: {"weight_map": {"w": "other\n\ud800.safetensors"}}})
    put_folder(root / "an index of nothing", CONFIG, safetensors_bytes(), **{index: {"weight_map": 7}})
    put_folder(root / "templates of all kinds", CONFIG, safetensors_bytes(), tokenizer_config={"chat_template": [7, {"name": "default"}]})
    (root / "good.gguf").write_bytes(WHOLE)
    return Catalog(root).scan()


@pytest.fixture(scope="module")
def scanned(tmp_path_factory) -> dict[str, ModelEntry]:
    return fill(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("name", [name for name in GGUFS if name not in ("numbers that are texts", "an architecture of a megabyte")])
def test_a_gguf_that_lies_is_listed_with_what_is_wrong_with_it(scanned, name):
    if name in ("a file type that is a list", "heads without end"):
        assert scanned[name].problem is None
    else:
        assert len(scanned[name].problem) < 200


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("the same key twice", "its header has 'k' twice"),
        ("a key of 70,000 bytes", "its header has a name of 70000 bytes"),
        ("another magic", "it is not a GGUF file (wrong magic bytes)"),
        ("type 255", "its header has a value of the unknown type 255"),
        ("the largest numbers", "by its own numbers one token would take"),
    ],
)
def test_what_is_wrong_is_told(scanned, name, told):
    assert scanned[name].problem.startswith(told)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_lies_is_listed_whatever_it_says(scanned, name):
    entry = scanned[name.strip()]
    may_load = ("surrogate", "all kinds", "bits", "lengths", "names", "a type without")
    assert len(entry.problem or "") < 250
    assert entry.problem or any(word in name for word in may_load)


def test_what_no_reader_was_written_for_hides_no_other_model(tmp_path, monkeypatch):
    (tmp_path / "x.gguf").write_bytes(WHOLE)
    put_folder(tmp_path / "y", CONFIG, safetensors_bytes())

    def fail(path: Path) -> None:
        raise TypeError("of a kind nobody thought of")

    monkeypatch.setattr(gguf, "read_header", fail)
    entries = Catalog(tmp_path).scan()
    assert entries["x"].problem == "its header is invalid (TypeError)"
    assert entries["y"].problem is None


def test_missing_shards_are_named(scanned):
    assert scanned["shards missing"].problem == "it is incomplete: other??.safetensors is missing (0 of 1 files present)"


def test_the_good_model_beside_them_is_offered(scanned):
    assert scanned["good"].problem is None


def test_what_is_listed_can_be_sent(scanned):
    for entry in scanned.values():
        sent = ModelState(
            name=entry.name,
            state="available",
            format=entry.format,
            size_bytes=entry.size_bytes,
            modified=1,
            reason=entry.problem,
            architecture=entry.facts.architecture,
            parameters=entry.facts.parameters,
            quantisation=entry.facts.quantisation,
            trained_context_length=entry.facts.context_length,
        )
        assert len(encode(sent)) < 2000
        assert len(msgspec.json.encode(entry.facts)) < 4000
        assert entry.facts.kv_bytes_per_token < 2**41


@pytest.mark.slow
def test_the_whole_header_may_cost_no_more_than_seconds_and_megabytes(tmp_path):
    """The worst that 64 MiB of header can be, each read in a process of its own."""
    arrays = MAX_TEXTS // 4
    for name, content in {
        "as many texts as may be": head(0, 1, text("k") + struct.pack("<IIQ", 9, 8, MAX_TEXTS) + b"\0" * (8 * MAX_TEXTS)),
        "as many arrays as may be": head(0, 1, text("k") + struct.pack("<IIQ", 9, 9, arrays) + struct.pack("<IQ", 4, 0) * arrays),
        "more texts": head(0, 1, text("k") + struct.pack("<IIQ", 9, 8, 2**23) + b"\0" * 2**26),
        "more arrays": head(0, 1, text("k") + struct.pack("<IIQ", 9, 9, 2**22) + struct.pack("<IQ", 4, 0) * 2**22),
        "values": head(0, 2**22, b"".join(text(str(n)) + b"\0\0\0\0\0" for n in range(2**12)) + b"\0" * (60 << 20)),
        "tensors": head(2**21, 0, b"".join(struct.pack("<QIIQ", 0, 0, 0, 0) for _ in range(2**12)) + b"\0" * (60 << 20)),
        "one long text": head(0, 1, text("tokenizer.chat_template") + struct.pack("<IQ", 8, 63 << 20) + b"\xff" * (63 << 20)),
    }.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        seconds, most = read_apart(path)
        path.unlink()
        assert seconds < 5, name
        assert most < 200 << 20, name


@pytest.mark.slow
def test_a_folders_files_cost_no_more_either(tmp_path):
    for name, content in {
        "as many lists as may be": b"[" + b"[]," * (2**19 - 9) + b"0]",
        "more lists": b"[" + b"[]," * (5 * 2**20) + b"0]",
        "as many numbers as may be": b"[" + b"99999999999," * (2**20 - 9) + b"0]",
    }.items():
        put_folder(tmp_path / name, CONFIG, safetensors_bytes())
        (tmp_path / name / "tokenizer_config.json").write_bytes(b'{"chat_template": null, "x": ' + content + b"}")
        seconds, most = read_apart(tmp_path / name)
        assert seconds < 5, name
        assert most < 250 << 20, name
        shutil.rmtree(tmp_path / name)
    put_folder(
        tmp_path / "x",
        CONFIG,
        header(b"{" + b",".join(b'"%d":{"dtype":"U8","shape":[],"data_offsets":[0,1]}' % n for n in range(600_000)) + b"}"),
    )
    seconds, most = read_apart(tmp_path / "x")
    assert seconds < 5
    assert most < 400 << 20


def read_apart(path: Path) -> tuple[float, int]:
    """Processor seconds and most bytes of a process that scans the file's folder."""
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom src.catalog import Catalog\nbefore = time.process_time()\n"
        "[entry] = Catalog(Path(sys.argv[1])).scan().values()\nprint(time.process_time() - before)"
    )
    command = [sys.executable, "-c", program, str(path.parent)]
    with Peak() as peak:
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    print(f"{path.name}: {float(said):.2f} s, {peak.bytes >> 20} MiB")
    return float(said), peak.bytes


@settings(max_examples=EXAMPLES, deadline=2000)
@given(st.data())
def test_a_gguf_whose_header_was_changed_anywhere_is_read_or_refused(tmp_path_factory, data):
    changed = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        kind = data.draw(st.sampled_from(["byte", "number", "cut", "insert"]))
        if kind == "byte":
            changed[place] = data.draw(st.integers(0, 255))
        elif kind == "number":
            number = data.draw(st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**63, 2**64 - 1]))
            changed[place : place + 8] = struct.pack("<Q", number)
        elif kind == "cut":
            del changed[place : place + data.draw(st.integers(0, 16))]
        else:
            changed[place:place] = data.draw(st.binary(max_size=16))
        if not changed:
            return
    path = tmp_path_factory.getbasetemp() / "fuzzed.gguf"
    path.write_bytes(changed)
    try:
        facts([read_header(path)], len(changed))
    except (BrokenModel, NotAModel):
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
tensors = st.fixed_dictionaries({"dtype": json_values, "shape": json_values, "data_offsets": json_values})
KEYS = (
    *("model_type", "architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *(
        "max_position_embeddings",
        "vocab_size",
        "text_config",
        "quantization",
        "quantization_config",
        "matryoshka_dimensions",
        "is_matryoshka",
    ),
)


@settings(max_examples=EXAMPLES, deadline=2000)
@given(
    config=st.dictionaries(st.sampled_from(KEYS), json_values, max_size=8),
    tensors=st.dictionaries(st.text(max_size=4), tensors | json_values, max_size=3),
    tokenizer=st.dictionaries(st.just("chat_template"), json_values),
)  # fmt: skip
def test_a_folder_of_any_json_is_listed_and_hides_no_other(tmp_path_factory, config, tensors, tokenizer):
    root = tmp_path_factory.mktemp("fuzzed")
    put_folder(root / "x", config, header(tensors), tokenizer_config=tokenizer)
    (root / "good.gguf").write_bytes(WHOLE)
    entries = Catalog(root).scan()
    assert entries["good"].problem is None
    msgspec.json.encode(entries["x"].facts)


def test_bytes_of_chance_are_no_model(tmp_path):
    draw = random.Random(1)
    for _ in range(200):
        path = tmp_path / "x.gguf"
        path.write_bytes(b"GGUF" + struct.pack("<I", 3) + draw.randbytes(draw.randrange(200)))
        with pytest.raises(BrokenModel):
            read_header(path)
