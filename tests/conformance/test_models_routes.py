"""GET /v1/models, and what else tells of a server."""

import pytest

from tests.conformance.api import answered, refused

pytestmark = pytest.mark.feature("models routes")


def test_the_list_has_openais_fields(api):
    listed = answered(api.http.get("/v1/models"))
    assert listed["object"] == "list"
    for entry in listed["data"]:
        assert entry["object"] == "model"
        assert isinstance(entry["id"], str)
        assert isinstance(entry["created"], int)
        assert isinstance(entry["owned_by"], str)


def test_the_model_under_test_is_in_it(api):
    assert api.model in [entry["id"] for entry in answered(api.http.get("/v1/models"))["data"]]


def test_one_model_is_the_same_object_as_in_the_list(api):
    one = answered(api.http.get(f"/v1/models/{api.model}"))
    (listed,) = [entry for entry in answered(api.http.get("/v1/models"))["data"] if entry["id"] == api.model]
    assert {key: one[key] for key in ("id", "object", "created", "owned_by")} == {
        key: listed[key] for key in ("id", "object", "created", "owned_by")
    }


def test_a_model_that_is_not_there_is_not_found(api):
    refused(api.http.get("/v1/models/no-such-model"), 404, "model_not_found", "model")


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "a%00b", "🌍"])
def test_a_name_is_never_a_path(api, name):
    response = api.http.get(f"/v1/models/{name}")
    assert response.status_code in (400, 404)
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_a_server_that_can_answer_is_healthy(api):
    assert api.http.get("/health").status_code == 200


def test_the_loaded_model_tells_its_context_and_what_it_can_do(api):
    entry = answered(api.http.get(f"/v1/models/{api.model}"))
    assert entry["context_length"] >= 256
    assert isinstance(entry["capabilities"], (list, dict))
    assert entry["state"] == "ready"


def test_it_tells_the_context_by_the_names_that_clients_look_for(api):
    entry = answered(api.http.get(f"/v1/models/{api.model}"))
    assert entry["max_model_len"] == entry["context_window"] == entry["max_input_tokens"] + 1 == entry["context_length"]


def test_anthropics_clients_get_anthropics_list(api):
    version = {"anthropic-version": "2023-06-01"}
    listed = answered(api.http.get("/v1/models", headers=version))
    assert set(listed) == {"data", "has_more", "first_id", "last_id"}
    entry = answered(api.http.get(f"/v1/models/{api.model}", headers=version))
    assert entry in listed["data"]
    assert (entry["type"], entry["id"]) == ("model", api.model)
    assert entry["display_name"]
    assert entry["created_at"].endswith("Z")
    assert "object" not in entry


@pytest.mark.feature("openapi.json")
def test_the_description_lists_the_routes_that_there_are(api):
    described = answered(api.http.get("/openapi.json"))
    assert described["openapi"].startswith("3.")
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/embeddings"):
        assert path in described["paths"]
