"""A model's small files are never read from elsewhere through a link in its folder: requests could read what they say."""

import asyncio
import json
from pathlib import Path

import pytest

from src.catalog import Catalog, Library, ModelEntry
from src.errors import ModelLoadFailed
from src.hf_folder import check_folder
from src.protocol import Failed
from src.protocol.launch import RunnerSpec
from src.runner.__main__ import serve
from src.settings import Settings
from tests.support.model_files import put, safetensors_bytes

SECRET = {"model_type": "secret", "chat_template": "secret {{ tools }}", "architectures": ["Secret"]}


@pytest.fixture
def models(tmp_path) -> Path:
    """A models folder with two models: one that a test spoils, and one that has to stay."""
    put(tmp_path / "models", "chat/model.safetensors", "chat/config.json", "good/x.gguf")
    put(tmp_path, "elsewhere/secret.json", "elsewhere/config.json", content=json.dumps(SECRET).encode())
    put(tmp_path, "elsewhere/default.jinja", content=b"secret {{ tools }}")
    return tmp_path / "models"


def link(path: Path, target: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def scan(models: Path) -> dict[str, ModelEntry]:
    return Catalog(models).scan()


OUT = {
    "chat_template.jinja": "elsewhere/default.jinja",
    "additional_chat_templates/default.jinja": "elsewhere/default.jinja",
    "additional_chat_templates": "elsewhere",
    "tokenizer_config.json": "elsewhere/secret.json",
    "chat_template.json": "elsewhere/secret.json",
    "tokenizer.json": "elsewhere/secret.json",
    "tokenizer.model": "elsewhere/secret.json",
    "config.json": "elsewhere/secret.json",
    "generation_config.json": "elsewhere/secret.json",
    "model.safetensors.index.json": "elsewhere/secret.json",
    "1_Pooling/config.json": "elsewhere/secret.json",
    "1_Pooling": "elsewhere",
    "x.safetensors": "elsewhere",  # a folder, which is no weights
}


@pytest.mark.parametrize(("name", "target"), OUT.items(), ids=OUT)
def test_a_link_out_of_the_folder_is_named_and_not_read(models, tmp_path, name, target):
    link(models / "chat" / name, tmp_path / target)
    listed = scan(models)
    shown = f"{(models / 'chat' / name).parent.name}/{Path(name).name}"
    assert listed["chat"].problem == f"{shown} is a link that leads out of the model's folder: put the file itself there"
    assert listed["good"].problem is None
    assert (listed["chat"].facts.architecture, listed["chat"].facts.capabilities) == (None, ())
    with pytest.raises(ModelLoadFailed, match=f"{shown} is a link"):
        check_folder(models / "chat", models)


def test_so_is_the_file_beside_a_gguf(models, tmp_path):
    link(models / "good" / "generation_config.json", tmp_path / "elsewhere/secret.json")
    assert "good/generation_config.json is a link" in scan(models)["good"].problem


def test_once_the_file_itself_is_there_the_model_is_offered(models, tmp_path):
    """Also a file whose kind does not tell one version of a model from another."""
    catalog = Catalog(models)
    link(models / "chat" / "tokenizer.model", tmp_path / "elsewhere/secret.json")
    assert catalog.scan()["chat"].problem is not None
    (models / "chat" / "tokenizer.model").unlink()
    put(models, "chat/tokenizer.model")
    assert catalog.scan()["chat"].problem is None


def of_its_own(models: Path, tmp_path: Path) -> None:
    put(models, "chat/files/chat_template.jinja")
    link(models / "chat" / "chat_template.jinja", "files/chat_template.jinja")


def of_a_neighbour(models: Path, tmp_path: Path) -> None:
    put(models, "other/tokenizer.json")
    link(models / "chat" / "tokenizer.json", "../other/tokenizer.json")


def weights_elsewhere(models: Path, tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/model.safetensors")
    link(models / "chat" / "model.safetensors", tmp_path / "elsewhere/model.safetensors")


def a_whole_folder_elsewhere(models: Path, tmp_path: Path) -> None:
    (models / "chat").rename(tmp_path / "disk")
    link(models / "chat", tmp_path / "disk")


def a_models_folder_that_is_a_link(models: Path, tmp_path: Path) -> None:
    of_a_neighbour(models, tmp_path)
    models.rename(tmp_path / "disk")
    link(models, tmp_path / "disk")


def a_snapshot(models: Path, tmp_path: Path) -> None:
    put(tmp_path, "hub/models--o--chat/blobs/w", content=safetensors_bytes())
    put(tmp_path, "hub/models--o--chat/blobs/c", content=b"{}")
    snapshot = tmp_path / "hub/models--o--chat/snapshots/abcd"
    link(snapshot / "model.safetensors", "../../blobs/w")
    link(snapshot / "config.json", "../../blobs/c")
    (models / "chat").rename(tmp_path / "old")
    link(models / "chat", tmp_path / "hub")


def a_blob_of_a_cache(models: Path, tmp_path: Path) -> None:
    """As huggingface-hub's downloads into a folder made them for years."""
    put(tmp_path, f"hub/models--o--chat/blobs/{'5e' * 32}")
    link(models / "chat" / "tokenizer.json", tmp_path / f"hub/models--o--chat/blobs/{'5e' * 32}")


def a_link_to_nothing(models: Path, tmp_path: Path) -> None:
    link(models / "chat" / "LICENSE", tmp_path / "absent")


ALLOWED = [
    of_its_own,
    of_a_neighbour,
    weights_elsewhere,
    a_whole_folder_elsewhere,
    a_models_folder_that_is_a_link,
    a_snapshot,
    a_blob_of_a_cache,
    a_link_to_nothing,
]


@pytest.mark.parametrize("make", ALLOWED)
def test_links_that_users_have_for_good_reasons_are_followed(models, tmp_path, make):
    make(models, tmp_path)
    assert {name: entry.problem for name, entry in scan(models).items()} == {"chat": None, "good": None}


def blobs_that_are_a_link(models: Path, tmp_path: Path) -> Path:
    link(models / "repo" / "blobs", tmp_path / "elsewhere")
    put(models / "repo", "snapshots/abcd/model.safetensors", "snapshots/abcd/config.json")
    link(models / "repo/snapshots/abcd/chat_template.jinja", "../../blobs/default.jinja")
    return models / "repo/snapshots/abcd"


def a_name_like_a_blobs(models: Path, tmp_path: Path) -> Path:
    """In a place so deep that it is not looked at by itself."""
    blob = f"a/b/c/d/models--o--x/blobs/{'a' * 40}"
    link(models / "chat" / blob, tmp_path / "elsewhere/default.jinja")
    link(models / "chat" / "chat_template.jinja", blob)
    return models / "chat"


def a_link_by_way_of_the_folder(models: Path, tmp_path: Path) -> Path:
    link(models / "chat" / "inner", tmp_path / "elsewhere")
    link(models / "chat" / "chat_template.jinja", "inner/default.jinja")
    return models / "chat"


def a_folder_with_a_longer_name(models: Path, tmp_path: Path) -> Path:
    put(tmp_path, "models-private/default.jinja")
    link(models / "chat" / "chat_template.jinja", tmp_path / "models-private/default.jinja")
    return models / "chat"


@pytest.mark.parametrize("make", [blobs_that_are_a_link, a_name_like_a_blobs, a_link_by_way_of_the_folder, a_folder_with_a_longer_name])
def test_no_folder_can_make_one_of_them_of_its_own(models, tmp_path, make):
    folder = make(models, tmp_path)
    [entry] = [entry for entry in scan(models).values() if entry.path == str(folder)]
    assert entry.problem == f"{folder.name}/chat_template.jinja is a link that leads out of the model's folder: put the file itself there"


# Templates of models.toml


def with_template(models: Path, template: str) -> ModelEntry:
    (models / "models.toml").write_text(f'[good]\nchat_template = "{template}"\n')
    return Library(models, pytest.fail).look().find("good")


def test_the_operators_own_link_in_the_models_folder_may_lead_anywhere(models, tmp_path):
    link(models / "own.jinja", tmp_path / "elsewhere/default.jinja")
    entry = with_template(models, "own.jinja")
    assert (entry.problem, entry.facts.capabilities) == (None, ("chat_template", "tools"))


@pytest.mark.parametrize("inner", [True, False], ids=["a folder of it", "the file"])
def test_a_template_in_a_models_folder_may_not(models, tmp_path, inner):
    if inner:
        link(models / "chat" / "templates", tmp_path / "elsewhere")
    else:
        link(models / "chat" / "templates/default.jinja", tmp_path / "elsewhere/default.jinja")
    entry = with_template(models, "chat/templates/default.jinja")
    assert entry.problem == "templates/default.jinja is a link that leads out of the model's folder: put the file itself there"
    assert entry.facts.capabilities == ()


# The runner: a folder can change after it was listed, and adapters are not listed


def run(models: Path, chat_template: Path | None = None, models_dir: str = "", **options: object) -> list[object]:
    """What a runner says that is to load this."""
    spec = RunnerSpec(
        model="chat",
        engine="echo",
        socket=str(models / "s"),
        max_requests=1,
        chat_template=str(chat_template) if chat_template else None,
        options={"model_path": "", "context_length": 512, "max_sequences": 1, "cached_prefixes": 0, **options},
    )
    said: list[object] = []

    async def serve_for_a_moment() -> None:
        stopping = asyncio.Event()
        stopping.set()
        await serve(spec, Settings(models_dir=models_dir or str(models)), said.append, stopping)

    asyncio.run(serve_for_a_moment())
    return said


@pytest.mark.parametrize("where", ["model", "lora", "adapters", "draft"])
def test_a_runner_reads_no_folder_with_a_link_out_of_it(models, tmp_path, where):
    link(models / "chat" / "tokenizer_config.json", tmp_path / "elsewhere/secret.json")
    folder = str(models / "chat")
    spoiled: dict[str, dict[str, object]] = {
        "model": {"model_path": folder},
        "lora": {"lora": [folder]},
        "adapters": {"adapters": {"a": folder}},
        "draft": {"vllm": {"speculative_config": {"method": "draft_model", "model": folder, "num_speculative_tokens": 3}}},
    }
    [failed] = run(models, **spoiled[where])
    assert isinstance(failed, Failed)
    assert "chat/tokenizer_config.json is a link that leads out of the model's folder" in failed.message


@pytest.mark.parametrize(("target", "refused"), [("models/shared.json", False), ("own/shared.json", True)])
def test_in_a_further_models_folder_a_link_may_lead_to_that_folder_alone(models, tmp_path, target, refused):
    (tmp_path / "own").mkdir()
    (tmp_path / target).write_text("{}")
    link(models / "chat" / "tokenizer_config.json", tmp_path / target)
    [said, *_] = run(models, models_dir=f"{tmp_path / 'own'},{models}", model_path=str(models / "chat"))
    assert ("leads out of the model's folder" in str(said)) == refused


def test_nor_a_template_that_is_one(models, tmp_path):
    link(models / "chat" / "own.jinja", tmp_path / "elsewhere/default.jinja")
    [failed] = run(models, models / "chat" / "own.jinja")
    assert isinstance(failed, Failed)
    assert "chat/own.jinja is a link" in failed.message
