"""Folders of other programs are read in place: what their models are called, where they come from, and what a hostile store cannot do."""

import json
import os

import pytest

from src.catalog import Catalog, Library, ModelEntry, stamps
from src.catalog.layout import Place
from tests.support.model_files import gguf_bytes, put
from tests.support.model_stores import KIND, OllamaStore, hub_cache, lm_studio

TINY = "registry.ollama.ai/library/tiny/latest"
HEX = "0123456789abcdef" * 4


def found(root, *, is_own: bool = False) -> dict[str, ModelEntry]:
    return Catalog(root, is_own=is_own).scan()


def places(entries: dict[str, ModelEntry]) -> dict[str, str]:
    return {name: entry.places[0].source for name, entry in entries.items()}


# LM Studio's folder and huggingface-hub's cache


def test_a_model_of_lm_studio_has_its_own_name_not_its_publishers(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    root = lm_studio(tmp_path / ".lmstudio/models")
    put(root, "mlx-community/Tiny-4bit/config.json", "mlx-community/Tiny-4bit/model.safetensors")
    put(root, "many/Tiny-GGUF/Tiny-Q4.gguf", "many/Tiny-GGUF/Tiny-Q8.gguf", "unsloth/Tiny-1B-GGUF/Tiny.gguf")
    for is_own in (True, False):
        entries = found(root, is_own=is_own)
        assert list(entries) == ["Tiny-1B-GGUF", "Tiny-4bit", "Tiny-Q4", "Tiny-Q8", "unsloth/Tiny-1B-GGUF"]
        assert {entry.places for entry in entries.values()} == {(Place("lm_studio", "~/.lmstudio/models"),)}


def test_so_has_one_in_any_further_folder_and_none_in_a_first_one(tmp_path):
    put(tmp_path, "publisher/model/x.gguf", "alone/y.gguf", "z.gguf")
    assert list(found(tmp_path)) == ["alone", "model", "z"]
    assert list(found(tmp_path, is_own=True)) == ["alone", "publisher", "z"]
    assert set(places(found(tmp_path)).values()) == {"folder"}


@pytest.mark.parametrize("above", ["", "hub"])
def test_of_a_hubs_cache_the_main_revision_is_found_by_the_repositorys_name(tmp_path, above):
    hub_cache(tmp_path / above)
    put(tmp_path / above, "models--org--Folder/snapshots/c/config.json", "models--org--Folder/snapshots/c/model.safetensors")
    put(tmp_path / above, "datasets--org--Data/snapshots/c/data.json", ".locks/models--org--Folder/x.lock")
    entries = found(tmp_path)
    assert places(entries) == {"Tiny-2B-GGUF": "huggingface", "Folder": "huggingface"}
    assert entries["Tiny-2B-GGUF"].path.endswith(f"snapshots/{'a' * 40}/Tiny-2B.gguf")


# Ollama's store


@pytest.fixture
def store(tmp_path) -> OllamaStore:
    return OllamaStore(tmp_path / "models")


def test_a_model_of_ollamas_store_is_its_gguf_with_the_parameters_as_defaults(store):
    stated = {"temperature": 0.25, "top_k": 20, "top_p": 0.5, "min_p": 0.1, "repeat_penalty": 1.5, "stop": ["<|end|>"], "num_predict": 9}
    template = gguf_bytes({"general.architecture": "llama", "tokenizer.chat_template": "{{ tools }}"})
    digest = store.model(TINY, template, {**stated, "presence_penalty": 99, "num_ctx": 8})
    store.model("registry.ollama.ai/library/tiny/1b", template)
    store.model("registry.ollama.ai/jane/own/v1.2", gguf_bytes({"general.architecture": "own"}))
    store.model("hf.co/org/Repo-GGUF/Q4.gguf", gguf_bytes({"general.architecture": "hub"}))
    for is_own in (True, False):
        entries = found(store.root, is_own=is_own)
        assert list(entries) == ["hf.co/org/Repo-GGUF:Q4.gguf", "jane/own:v1.2", "tiny:1b", "tiny:latest"]
        tiny = entries["tiny:latest"]
        assert (tiny.path, tiny.format, tiny.problem, tiny.also) == (str(store.path(digest)), "gguf", None, ("tiny",))
        sampling = {"temperature": 0.25, "top_k": 20, "top_p": 0.5, "min_p": 0.1, "repetition_penalty": 1.5}
        assert (tiny.facts.sampling, entries["tiny:1b"].facts.sampling) == (sampling, {})
        assert tiny.facts.capabilities == ("chat_template", "tools"), "of the GGUF's own template"
        assert set(places(entries).values()) == {"ollama"}
    listing = Library(store.root, pytest.fail).look()
    assert listing.find("tiny").name == "tiny:latest"
    assert listing.find("tiny").options.sampling() == sampling


def test_two_names_of_one_model_are_one_entry_unless_they_differ_in_parameters(store):
    for tag in ("1b", "latest", "q4"):
        store.model(f"registry.ollama.ai/library/tiny/{tag}", gguf_bytes(), {"temperature": 0.5} if tag == "q4" else None)
    listing = Library(store.root, pytest.fail).look()
    assert list(listing.entries) == ["tiny:1b", "tiny:q4"]
    assert listing.find("tiny:latest").name == listing.find("tiny").name == "tiny:1b"


def test_what_changes_in_a_store_is_seen(store, monkeypatch):
    monkeypatch.setattr(stamps, "SETTLE_SECONDS", -60.0)  # every change is old enough
    library = Library(store.root, pytest.fail)
    assert list(library.look().entries) == []
    digest = store.model(TINY, gguf_bytes(), {"temperature": 0.5})
    assert library.look().find("tiny").options.temperature == 0.5
    first = library.look()
    assert library.look() is first, "not scanned again"
    store.model(TINY, gguf_bytes(), {"temperature": 0.75})
    assert library.look().find("tiny").options.temperature == 0.75
    store.path(digest).unlink()
    assert "No such file" in (library.look().find("tiny").problem or "")
    (store.root / "manifests" / TINY).unlink()
    assert list(library.look().entries) == []


def layers(*rows: dict[str, object]) -> bytes:
    return json.dumps({"schemaVersion": 2, "layers": rows}).encode()


def model_layer(digest: str, size: int = 256) -> dict[str, object]:
    return {"mediaType": KIND + "model", "digest": digest, "size": size}


HOSTILE = {
    "no JSON": (b"\x00\xff", "not one that Ollama writes"),
    "another JSON": (b'{"layers": 3}', "not one that Ollama writes"),
    "nested without end": (b'{"layers":' + b"[" * 10**5, "not one that Ollama writes"),
    "too large": (b" " * (4 * 2**20 + 1), "larger than 4,194,304 bytes"),
    "no layers": (b"{}", "names 0 GGUF files"),
    "two models": (layers(model_layer(f"sha256:{HEX}"), model_layer(f"sha256:{HEX}")), "names 2 GGUF files"),
    "a way out": (layers(model_layer("sha256:../../../outside")), "by what is no SHA-256"),
    "a way out after a digest": (layers(model_layer(f"sha256-{HEX}/../../outside")), "by what is no SHA-256"),
    "an absolute path": (layers(model_layer("/etc/passwd")), "by what is no SHA-256"),
    "a short digest": (layers(model_layer("sha256:abc")), "by what is no SHA-256"),
    "a blob that is missing": (layers(model_layer(f"sha256:{HEX}")), "cannot be read: No such file"),
    "single tensors": (layers({"mediaType": KIND + "tensor", "digest": f"sha256:{HEX}", "size": 1}), "only Ollama reads"),
    "an adapter": (layers(model_layer(f"sha256:{HEX}"), {"mediaType": KIND + "adapter"}), "a LoRA adapter"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_manifest_that_is_wrong_or_hostile_is_listed_with_the_reason(store, case):
    content, reason = HOSTILE[case]
    put(store.root.parent, "outside", content=gguf_bytes())
    store.manifest(TINY, content)
    store.model("registry.ollama.ai/library/good/latest", gguf_bytes())
    entries = found(store.root)
    assert reason in (entries["tiny:latest"].problem or "")
    assert entries["good:latest"].problem is None


def test_a_blob_that_is_no_whole_gguf_is_listed_with_the_reason(store):
    whole = gguf_bytes()
    store.model("registry.ollama.ai/library/cut/a", whole[:-1])
    store.model("registry.ollama.ai/library/old/a", b"ggml" + whole)
    store.model("registry.ollama.ai/library/eye/a", gguf_bytes({"general.architecture": "clip"}))
    store.path(store.model("registry.ollama.ai/library/half/a", whole + b"more")).write_bytes(whole)
    assert {name: entry.problem for name, entry in found(store.root).items()} == {
        "cut:a": "it is cut short: 255 of 256 bytes present",
        "old:a": "it is not a GGUF file (wrong magic bytes)",
        "eye:a": "its GGUF is no model, but a part of one",
        "half:a": "it is cut short: 256 of 260 bytes present",
    }


def test_no_file_outside_the_store_is_read_for_parameters_and_pipes_are_not_waited_for(store, tmp_path):
    put(tmp_path, "secret.json", content=b'{"temperature": 0.5}')
    store.model("registry.ollama.ai/library/link/a", gguf_bytes(), {"temperature": 1})
    store.model("registry.ollama.ai/library/pipe/a", gguf_bytes(), {"temperature": 2})
    for value, make in ((1, lambda path: path.symlink_to(tmp_path / "secret.json")), (2, os.mkfifo)):
        path = store.path(store.blob(json.dumps({"temperature": value}).encode()))
        path.unlink()
        make(path)
    os.mkfifo(store.manifest("registry.ollama.ai/library/pipe/b", b"").with_name("c"))
    (store.root / "manifests/registry.ollama.ai/library/loop").symlink_to("link")
    (store.root / "manifests/registry.ollama.ai/library/link/z").symlink_to("a")
    entries = found(store.root)
    assert sorted(entries) == ["link:a", "pipe:a", "pipe:b"]
    assert "leads out of Ollama's store" in (entries["link:a"].problem or "")
    assert "not a regular file" in (entries["pipe:a"].problem or "")


@pytest.mark.parametrize(
    "parameters", [b"[]", b"{", b"[" * 9999, b'{"temperature": "hot"}', b'{"temperature": 1e999, "top_k": 0.5}', b" " * 2**17]
)
def test_parameters_that_are_wrong_are_left_out(store, parameters):
    rows = [store.layer("model", gguf_bytes()), store.layer("params", parameters)]
    store.manifest(TINY, layers(*rows))
    entry = found(store.root)["tiny:latest"]
    assert (entry.problem, entry.facts.sampling) == (None, {})


def test_a_store_of_very_many_names_is_cut_off_and_says_so(store, monkeypatch):
    monkeypatch.setattr("src.catalog.ollama.MAX_NAMES", 10)
    for number in range(20):
        store.model(f"registry.ollama.ai/library/tiny/{number}", gguf_bytes())
    catalog = Catalog(store.root, is_own=False)
    assert catalog.scan() == {}
    assert [str(each) for each in catalog.unreadable] == [f"the rest of {store.root} is skipped: it has more than 10 manifests"]
