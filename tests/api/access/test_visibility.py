"""A key with a list of models: what it sees, and that the manager decides it with the one question that a request needs anyway."""

import asyncio

import pytest

from src.api.app import create_app
from src.errors import ModelNotFound
from src.keys import KeyFile
from src.manager.manager import Manager
from src.protocol import (
    AskStatus,
    Delta,
    Embed,
    Embedded,
    Ended,
    Failed,
    Finished,
    ManagerRequest,
    ModelReady,
    Resolve,
    RunnerRequest,
    Started,
    Tokenize,
    Tokenized,
    encode,
)
from src.settings import Settings
from tests.support.model_files import put
from tests.support.peer import Peer

FINISHED = Finished(prompt_tokens=1, completion_tokens=1, cached_tokens=0)
ANSWERS = {
    Tokenize: [Tokenized(text="x", tokens=[1], names=["x"], context_length=9)],
    Embed: [Embedded(vector=bytes(4)), FINISHED],
}
TEXT = [Started(prompt_tokens=1, cached_tokens=0, queue_seconds=0), Delta(text="x", tokens=[1]), Ended(reason="stop"), FINISHED]


@pytest.fixture
def gateway(tmp_path):
    """A gateway in this process with a key that sees some models, and the questions that its manager gets."""
    keys = KeyFile(tmp_path / "keys.json")
    some, _ = keys.add("some", models=["one", "deux"])
    every, _ = keys.add("every")
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    ready = ModelReady(model="one", socket=str(run_dir / "r.sock"), engine="echo", fingerprint="f", pid=1)
    refused = Failed.of(ModelNotFound("The model 'two' does not exist. Models here: one.", "model"))

    def resolve(connection) -> None:
        connection.sendall(encode(refused if manager.requests[-1].model == "two" else ready))

    def answer(connection) -> None:
        connection.sendall(b"".join(map(encode, ANSWERS.get(type(runner.requests[-1]), TEXT))))

    with Peer(run_dir / "manager.sock", resolve, ManagerRequest) as manager, Peer(run_dir / "r.sock", answer, RunnerRequest) as runner:
        client = create_app(Settings(run_dir=str(run_dir), api_keys_file=str(keys.path))).test_client()
        yield client, {"some": some, "every": every}, manager.requests


REQUESTS = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ("/v1/embeddings", {"input": "x"}),
    ("/v1/tokenize", {"prompt": "x"}),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS, ids=[path for path, _ in REQUESTS])
def test_a_request_costs_one_question_to_the_manager_whatever_the_key_sees(gateway, path, body):
    client, secrets, questions = gateway
    for who in secrets:
        response = client.post(path, json={"model": "one", **body}, headers={"X-API-Key": secrets[who]})
        assert response.status_code == 200, response.text
    assert questions == [Resolve(model="one", among=("one", "deux")), Resolve(model="one")]


def test_a_kept_answer_costs_one_question_too(gateway):
    client, secrets, questions = gateway
    headers = {"X-API-Key": secrets["some"], "Idempotency-Key": "k"}
    body = {"model": "one", "prompt": "x"}
    first, again = (client.post("/v1/completions", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, first.data) == (200, again.data)
    assert questions == [Resolve(model="one", among=("one", "deux"))]


def test_a_model_that_the_manager_does_not_find_among_them_is_not_found(gateway):
    client, secrets, questions = gateway
    response = client.post("/v1/completions", json={"model": "two", "prompt": "x"}, headers={"X-API-Key": secrets["some"]})
    assert (response.status_code, response.json["error"]["code"]) == (404, "model_not_found")
    assert not any(isinstance(question, AskStatus) for question in questions)


# The manager's side


NOT_LOADED = " is not loaded, and LOAD_ON_DEMAND is off."


@pytest.fixture
def manager(tmp_path):
    """Of three models, of which one has an alias and one an adapter. It finds them, and loads none."""
    put(tmp_path, "one.gguf", "two.gguf", "three.gguf")
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "sql").write_bytes(b"")
    (tmp_path / "models.toml").write_text('[two]\naliases = ["deux"]\n[three.adapters]\nsql = "adapters/sql"\n')
    return Manager(Settings(models_dir=str(tmp_path), default_model="two", load_on_demand=False), tmp_path)


def resolve(manager: Manager, name: str | None, among: tuple[str, ...]) -> str:
    """What a request for it is refused with."""
    with pytest.raises(ModelNotFound) as refusal:
        asyncio.run(manager.resolve(name, among))
    return refusal.value.message


@pytest.mark.parametrize(
    ("name", "among", "model"),
    [
        ("one", ("one",), "one"),
        ("two", ("one", "two"), "two"),
        ("two", ("deux",), "two"),
        ("deux", ("two",), "two"),
        ("sql", ("sql",), "three"),
        (None, ("two",), "two"),
        (None, ("deux",), "two"),
    ],
)
def test_a_listed_name_opens_its_model_under_all_its_names(manager, name, among, model):
    assert resolve(manager, name, among) == f"The model {model!r}{NOT_LOADED}"


@pytest.mark.parametrize(
    ("name", "among", "visible"),
    [
        ("two", ("one",), "one"),
        ("deux", ("one",), "one"),
        ("nowhere", ("one", "deux"), "one, two"),
        ("sql", ("three",), "three"),  # an adapter is a model of its own
        ("three", ("sql",), "sql"),
        ("one", ("nowhere",), "none"),
        (None, ("one",), "one"),
    ],
)
def test_others_are_not_found_and_only_visible_models_are_named(manager, name, among, visible):
    said = resolve(manager, name, among)
    which = "The request names no model." if name is None else f"The model '{name}' does not exist."
    assert said == f"{which} Models here: {visible}."


@pytest.mark.parametrize(
    ("name", "among", "model"),
    [
        ("none", (), "two"),
        ("none", ("two", "one"), "two"),
        ("one", ("two",), "two"),  # as if it were not there
        ("one", (), "one"),
        ("deux", (), "two"),
    ],
)
def test_a_setting_lets_the_default_model_answer_for_names_that_are_not_there(tmp_path, name, among, model):
    put(tmp_path, "one.gguf", "two.gguf")
    (tmp_path / "models.toml").write_text('[two]\naliases = ["deux"]\n')
    settings = Settings(models_dir=str(tmp_path), default_model="two", load_on_demand=False, unknown_models_use_default=True)
    manager = Manager(settings, tmp_path)
    assert resolve(manager, name, among) == f"The model {model!r}{NOT_LOADED}"
    assert resolve(manager, name, ("one",) if model == "two" else ("two",)) != f"The model {model!r}{NOT_LOADED}"
