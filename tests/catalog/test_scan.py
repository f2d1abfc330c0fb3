"""What counts as a model in the models folder, and what it is called."""

import json
import os
from pathlib import Path

import pytest

from src.catalog import Catalog, gguf
from tests.support.model_files import gguf_bytes, put, safetensors_bytes


def names(root: Path) -> list[str]:
    return list(Catalog(root).scan())


def problems(root: Path) -> dict[str, str | None]:
    return {name: entry.problem for name, entry in Catalog(root).scan().items()}


def paths(root: Path) -> dict[str, str]:
    return {name: str(Path(entry.path).relative_to(root)) for name, entry in Catalog(root).scan().items()}


def test_a_missing_folder_holds_no_models(tmp_path):
    assert Catalog(tmp_path / "absent").scan() == {}


def test_a_file_in_place_of_the_folder_holds_no_models(tmp_path):
    put(tmp_path, "models")
    assert Catalog(tmp_path / "models").scan() == {}


def test_a_file_is_named_after_its_stem(tmp_path):
    put(tmp_path, "Qwen2.5-0.5B.Q4_K_M.gguf")
    assert paths(tmp_path) == {"Qwen2.5-0.5B.Q4_K_M": "Qwen2.5-0.5B.Q4_K_M.gguf"}


def test_the_only_model_of_a_folder_is_named_after_the_folder(tmp_path):
    put(tmp_path, "smollm2/SmolLM2.Q4_1.gguf")
    assert paths(tmp_path) == {"smollm2": "smollm2/SmolLM2.Q4_1.gguf"}


def test_of_nested_folders_the_top_one_gives_the_name(tmp_path):
    put(tmp_path, "org/repo/deep/x.gguf", "other/repo/model.safetensors", "other/repo/config.json")
    assert paths(tmp_path) == {"org": "org/repo/deep/x.gguf", "other": "other/repo"}


def test_several_models_of_a_folder_are_named_one_by_one(tmp_path):
    put(tmp_path, "llama/a.gguf", "llama/inner/b.gguf", "llama/c-00001-of-00002.gguf", "llama/c-00002-of-00002.gguf")
    assert paths(tmp_path) == {"a": "llama/a.gguf", "b": "llama/inner/b.gguf", "c": "llama/c-00001-of-00002.gguf"}


def test_several_safetensors_folders_below_one_are_named_after_the_inner_ones(tmp_path):
    put(tmp_path, *(f"org/{name}/{file}" for name in ("one", "two") for file in ("model.safetensors", "config.json")))
    assert paths(tmp_path) == {"one": "org/one", "two": "org/two"}


def test_a_split_model_is_one_entry_whose_path_is_the_first_part(tmp_path):
    put(tmp_path, *(f"big/q4/big-{number:05}-of-00003.gguf" for number in (1, 2, 3)))
    put(tmp_path, *(f"loose-{number:05}-of-00002.gguf" for number in (1, 2)))
    assert paths(tmp_path) == {"big": "big/q4/big-00001-of-00003.gguf", "loose": "loose-00001-of-00002.gguf"}


def test_a_split_model_with_a_part_missing_is_listed_with_the_reason(tmp_path):
    put(tmp_path, "a-00001-of-00003.gguf", "a-00003-of-00003.gguf")
    put(tmp_path, "b/model-00002-of-00002.safetensors", "b/config.json")
    assert problems(tmp_path) == {"a": "part 2 of 3 is missing (2 present)", "b": "part 1 of 2 is missing (1 present)"}


def test_safetensors_need_their_config_beside_them(tmp_path):
    put(tmp_path, "whole/model.safetensors", "whole/config.json", "adapter/adapter_model.safetensors", "apart/config.json")
    put(tmp_path, "apart/weights/model.safetensors", "model.safetensors", "config.json")
    assert paths(tmp_path) == {"whole": "whole"}


def test_both_formats_in_one_folder_are_two_models(tmp_path):
    put(tmp_path, "m/model.safetensors", "m/config.json", "m/m.Q8_0.gguf")
    assert {name: entry.format for name, entry in Catalog(tmp_path).scan().items()} == {"m": "safetensors", "m.Q8_0": "gguf"}


def test_sizes_are_summed_and_the_newest_time_counts(tmp_path):
    one, two = safetensors_bytes(), safetensors_bytes({"lm_head.weight": ("F32", (5,))})
    put(tmp_path, "s/model-00001-of-00002.safetensors", content=one)
    put(tmp_path, "s/model-00002-of-00002.safetensors", content=two)
    put(tmp_path, "s/config.json", "s/tokenizer.json")
    os.utime(tmp_path / "s/model-00001-of-00002.safetensors", (1_700_000_000.9, 1_700_000_000.9))
    os.utime(tmp_path / "s/model-00002-of-00002.safetensors", (1_600_000_000, 1_600_000_000))
    entry = Catalog(tmp_path).scan()["s"]
    assert (entry.size_bytes, entry.modified) == (len(one) + len(two), 1_700_000_000)


@pytest.mark.parametrize(
    "name",
    ["mmproj-model-f16.gguf", "llava.mmproj-Q8.GGUF".lower(), ".hidden.gguf", ".cache/x.gguf", ".x.gguf.part", "x.tmp/x.gguf", "x.txt"],
)
def test_what_is_no_model_is_left_out(tmp_path, name):
    put(tmp_path, name)
    assert names(tmp_path) == []


def test_an_mmproj_file_beside_a_model_does_not_make_two(tmp_path):
    put(tmp_path, "vision/model.gguf", "vision/mmproj-model.gguf")
    assert paths(tmp_path) == {"vision": "vision/model.gguf"}


def test_empty_and_damaged_files_are_listed_with_the_reason(tmp_path):
    put(tmp_path, "x.gguf", "d/model.safetensors", "d/config.json", content=b"")
    put(tmp_path, "page.gguf", content=b"<html>404 Not Found</html>")
    put(tmp_path, "short.gguf", content=gguf_bytes()[:-1])
    assert problems(tmp_path) == {
        "d": "model.safetensors is empty",
        "page": "it is not a GGUF file (wrong magic bytes)",
        "short": f"it is cut short: {len(gguf_bytes()) - 1} of {len(gguf_bytes())} bytes present",
        "x": "x.gguf is empty",
    }


def test_half_downloaded_files_are_listed_with_the_reason(tmp_path):
    put(tmp_path, "a/x.gguf.incomplete", "b.gguf.part", "c/deep/model.safetensors.incomplete", "d/y.gguf_0_167772159", content=b"half")
    told = problems(tmp_path)
    assert list(told) == ["a", "b", "c", "d"]
    assert told["a"] == "its download is incomplete: x.gguf.incomplete is a partial file"


def test_a_broken_file_beside_a_whole_one_does_not_take_its_name(tmp_path):
    put(tmp_path, "m/good.gguf")
    put(tmp_path, "m/other.gguf.incomplete", "m/good.gguf.incomplete", content=b"half")
    assert next(iter(problems(tmp_path).items())) == ("m", None)
    assert [name for name, problem in problems(tmp_path).items() if problem] == ["other"]


def test_an_index_that_names_a_missing_file_tells_which(tmp_path):
    put(tmp_path, "m/config.json", "m/model-00001-of-00001.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors", "b": "extra.safetensors"}}
    put(tmp_path, "m/model.safetensors.index.json", content=json.dumps(index).encode())
    assert problems(tmp_path) == {"m": "it is incomplete: extra.safetensors is missing (1 of 2 files present)"}


def test_adapters_and_vision_encoders_are_no_models(tmp_path):
    put(tmp_path, "lora.gguf", content=gguf_bytes({"general.type": "adapter", "general.architecture": "llama"}))
    put(tmp_path, "eyes.gguf", content=gguf_bytes({"general.architecture": "clip"}))
    assert names(tmp_path) == []


# The caches of the hubs' clients


def test_what_modelscope_downloads_into_a_folder_is_served_by_the_folders_name(tmp_path):
    old, new = "qwen-0.5b/qwen/Qwen2___5-0___5B-Instruct", "qwen-1b/models/qwen--Qwen2.5-1B/snapshots/master"
    for folder in (old, new):
        put(tmp_path, f"{folder}/config.json", f"{folder}/model.safetensors", f"{folder}/tokenizer.json")
    put(tmp_path, "qwen-1b/.lock/file_0123.lock", "qwen-0.5b/qwen/Qwen2___5-0___5B-Instruct/.msc", content=b"")
    assert paths(tmp_path) == {"qwen-0.5b": old, "qwen-1b": new}


def test_a_models_folder_that_is_modelscopes_cache_itself_has_each_model_by_name(tmp_path):
    for name in ("Qwen--Qwen2.5-0.5B-Instruct", "google--gemma-3-270m-it"):
        put(tmp_path, f"models/{name}/snapshots/master/config.json", f"models/{name}/snapshots/master/model.safetensors")
    assert names(tmp_path) == ["Qwen2.5-0.5B-Instruct", "gemma-3-270m-it"]


def hugging_face_cache(root: Path, commit: str, size: int) -> None:
    """As huggingface-hub lays it out: snapshots of links to blobs."""
    repository = root / "models--Qwen--Qwen2.5-0.5B"
    put(repository, f"blobs/{commit}", content=safetensors_bytes({"a": ("F32", (size,))}))
    put(repository, f"snapshots/{commit}/config.json")
    (repository / f"snapshots/{commit}/model.safetensors").symlink_to(f"../../blobs/{commit}")


@pytest.mark.parametrize(("top", "name"), [("", "Qwen2.5-0.5B"), ("mine", "mine")])
def test_of_several_revisions_in_hugging_faces_cache_main_counts(tmp_path, top, name):
    for size, commit in enumerate(("aaaa", "bbbb", "cccc"), 1):
        hugging_face_cache(tmp_path / top, commit, size)
    put(tmp_path / top, "models--Qwen--Qwen2.5-0.5B/refs/main", content=b"bbbb")
    [(found, path)] = paths(tmp_path).items()
    assert (found, Path(path).name) == (name, "bbbb")


def test_without_a_main_the_newest_revision_counts(tmp_path):
    for size, commit in enumerate(("aaaa", "bbbb"), 1):
        hugging_face_cache(tmp_path, commit, size)
    snapshots = tmp_path / "models--Qwen--Qwen2.5-0.5B" / "snapshots"
    os.utime(snapshots / "bbbb", (1_600_000_000, 1_600_000_000))
    assert Path(paths(tmp_path)["Qwen2.5-0.5B"]).name == "aaaa"


# Scans after the first


def test_a_file_is_opened_once_and_again_only_after_it_has_changed(tmp_path, monkeypatch):
    opened = []
    read = gguf.read_header
    monkeypatch.setattr(gguf, "read_header", lambda path: opened.append(path.name) or read(path))
    put(tmp_path, "a.gguf", "b.gguf")
    catalog = Catalog(tmp_path)
    first = catalog.scan()
    assert catalog.scan() == first
    assert opened == ["a.gguf", "b.gguf"]
    put(tmp_path, "b.gguf", content=gguf_bytes({"general.architecture": "qwen3"}))
    second = catalog.scan()
    assert opened == ["a.gguf", "b.gguf", "b.gguf"]
    assert second["b"].facts.architecture == "qwen3"
    assert (second["a"].version == first["a"].version, second["b"].version == first["b"].version) == (True, False)


def test_names_that_cannot_be_written_as_json_are_left_out(tmp_path):
    put(tmp_path, "line\nbreak.gguf")
    try:
        with open(os.fsencode(tmp_path) + b"/\xff.gguf", "wb") as file:
            file.write(b"weights")
    except OSError:
        pass  # this file system has no such names
    assert names(tmp_path) == []


def test_broken_links_are_left_out_and_good_ones_followed(tmp_path):
    root = tmp_path / "models"
    put(tmp_path, "store/x.gguf", "store/repo/y.gguf")
    root.mkdir()
    (root / "broken.gguf").symlink_to(tmp_path / "absent")
    (root / "file.gguf").symlink_to(tmp_path / "store/x.gguf")
    (root / "folder").symlink_to(tmp_path / "store/repo")
    assert names(root) == ["file", "folder"]


def test_links_in_a_circle_end(tmp_path):
    put(tmp_path, "a/x.gguf", "b/y.gguf")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "b/self").symlink_to(tmp_path / "b")
    assert paths(tmp_path) == {"a": "a/x.gguf", "b": "b/y.gguf"}


def test_a_folder_link_is_a_second_name(tmp_path):
    put(tmp_path, "real/x.gguf")
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    assert names(tmp_path) == ["alias", "real"]


def test_models_that_would_share_a_name_are_all_listed(tmp_path):
    put(
        tmp_path,
        "x.gguf",
        "x/one.gguf",
        "y/model.safetensors",
        "y/config.json",
        "y.gguf",
        "p/same.gguf",
        "p/z.gguf",
        "q/same.gguf",
        "q/w.gguf",
    )
    assert paths(tmp_path) == {
        "same": "p/same.gguf",
        "q/same.gguf": "q/same.gguf",
        "w": "q/w.gguf",
        "x": "x.gguf",
        "x/one.gguf": "x/one.gguf",
        "y": "y",
        "y.gguf": "y.gguf",
        "z": "p/z.gguf",
    }


def test_names_come_in_order(tmp_path):
    put(tmp_path, "c.gguf", "a/x.gguf", "b.gguf")
    assert names(tmp_path) == ["a", "b", "c"]


def test_a_lookup_takes_the_exact_name_and_never_a_path(tmp_path):
    root = tmp_path / "models"
    put(root, "x.gguf")
    put(tmp_path, "secret.gguf")
    models = Catalog(root).scan()
    assert not any(name in models for name in ("../secret", "X", "x.gguf", str(tmp_path / "secret.gguf"), ""))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "endless"])
def test_a_caches_reference_that_is_no_file_is_not_waited_for(tmp_path, make):
    put(tmp_path, "models--o--x/snapshots/aaaa/x.gguf", content=gguf_bytes())
    (tmp_path / "models--o--x" / "refs").mkdir()
    make(tmp_path / "models--o--x" / "refs" / "main")
    assert names(tmp_path) == ["x"]
