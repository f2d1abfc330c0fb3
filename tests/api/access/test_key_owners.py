"""What belongs to a key: kept answers and responses. Not to its name, which may be given again."""

import httpx

from src.keys import KeyFile
from tests.support.server import Server


def call(server: Server, method: str, path: str, key: str, **options: object) -> httpx.Response:
    headers = {"x-api-key": key, **options.pop("headers", {})}
    return httpx.request(method, server.url + path, headers=headers, timeout=30, **options)  # type: ignore[arg-type]


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_key_under_the_name_of_a_revoked_one_owns_nothing_of_it(tmp_path):
    file = KeyFile(tmp_path / "keys.json")
    first, _ = file.add("carol")
    with Server(INFERENCE_ENGINE="echo", disposable=True, API_KEYS_FILE=file.path, RESPONSE_STORE_SIZE=5) as server:
        body, kept = {"prompt": "x", "max_tokens": 2}, {"Idempotency-Key": "order-1"}
        answer = call(server, "POST", "/v1/completions", first, json=body, headers=kept).json()
        response = call(server, "POST", "/v1/responses", first, json={"input": "x"}).json()["id"]
        renewed, _ = file.rotate("carol")
        for path in (f"/v1/completions/{answer['id']}", f"/v1/responses/{response}"):
            assert call(server, "GET", path, renewed).status_code == 200, "one that is rotated keeps what it has"
        file.revoke("carol")
        second, _ = file.add("carol")
        for path in (f"/v1/completions/{answer['id']}", f"/v1/responses/{response}"):
            assert code(call(server, "GET", path, second)) == (404, "not_found")
        assert code(call(server, "DELETE", f"/v1/responses/{response}", second)) == (404, "not_found")
        anew = call(server, "POST", "/v1/responses", second, json={"input": "x", "previous_response_id": response})
        assert code(anew) == (400, "invalid_value")
        assert call(server, "POST", "/v1/completions", second, json={**body, "max_tokens": 3}, headers=kept).status_code == 200
