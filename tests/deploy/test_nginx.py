"""A real nginx before real instances: none that is killed takes a request along that has not begun to stream."""

import contextlib
import http.server
import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import psutil
import pytest

from tests.support.http_server import LocalServer
from tests.support.metrics import scrape
from tests.support.nginx import Nginx
from tests.support.server import Server, free_port, wait_until

pytestmark = pytest.mark.slow

PROMPT = "What is the capital of France?"


def kill_at_once(server: Server) -> None:
    """Every process of an instance, as a machine that loses its power; the master first, or it would start others anew."""
    for process in server.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.process.wait()


@pytest.fixture
def instances():
    """Three on this machine, as three services would be: nothing but PORT tells them apart."""
    with contextlib.ExitStack() as stack:
        settings = {"INFERENCE_ENGINE": "echo", "ECHO_STEP_MS": 20, "MAX_PARALLEL_SEQUENCES": 3}
        servers = [stack.enter_context(Server(**settings, wait=False, disposable=True)) for _ in range(3)]
        for server in servers:
            server.wait_healthy()
        yield servers


class Load:
    """Clients that ask over and over. What each request came to: "whole", "broken" (after its first event), or the error."""

    def __init__(self, url: str, clients: int) -> None:
        self.outcomes: list[str] = []
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def end(self) -> list[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.outcomes

    def _run(self, number: int) -> None:
        with openai.OpenAI(base_url=f"{self._url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            while not self._stop.is_set():
                self.outcomes.append(self._ask(client, stream=number % 2 == 0))

    def _ask(self, client: openai.OpenAI, stream: bool) -> str:
        begun = False
        try:
            answer = client.completions.create(model="echo", prompt=PROMPT, max_tokens=30, stream=stream, extra_body={"ignore_eos": True})
            if not stream:
                return "whole" if answer.choices[0].text == PROMPT else f"wrong: {answer}"
            text, finished = "", False
            for chunk in answer:
                begun = True
                text += chunk.choices[0].text if chunk.choices else ""
                finished = finished or bool(chunk.choices and chunk.choices[0].finish_reason)
            return "whole" if (text, finished) == (PROMPT, True) else "broken" if begun else "empty"
        except (openai.APIError, httpx.HTTPError) as error:
            return "broken" if begun else repr(error)


def served(server: Server) -> float:
    return scrape(server.url).sum("llm_requests_total", route="POST /v1/completions", status="200")


def test_an_instance_killed_under_load_loses_no_request_that_had_not_begun_to_stream_and_works_again_when_it_is_back(instances):
    with Nginx([server.port for server in instances]) as nginx:
        load = Load(nginx.url, clients=24)
        try:
            victim, drained, stays = instances
            # It has work of each kind: streams that have begun, whole answers under way, and requests that wait for a place.
            wait_until(
                lambda: (now := scrape(victim.url)).sum("llm_requests_running") == 3 and now.sum("llm_requests_waiting") >= 2,
                what="a busy instance with some that wait",
            )
            kill_at_once(victim)
            before = [served(server) for server in (drained, stays)]
            wait_until(
                lambda: all(served(server) > count + 10 for server, count in zip((drained, stays), before, strict=True)),
                what="the others' answers without it",
            )
            with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=20, PORT=victim.port, wait=False, disposable=True) as again:
                again.url = victim.url
                again.wait_healthy()
                wait_until(lambda: served(again) > 0, what="work for the instance that is back")
                drained.process.terminate()  # in order: it refuses new requests, and ends those it has
                assert drained.process.wait(30) == 0
                asked = len(load.outcomes)
                wait_until(lambda: len(load.outcomes) > asked + 48, what="answers without the one that has stopped")
                outcomes = load.end()
        finally:
            load.end()
        assert not [outcome for outcome in outcomes if outcome not in ("whole", "broken")]
        # Those that had a place in the killed instance, or whose last bytes were on their way; none of the one that was stopped.
        assert outcomes.count("broken") <= 6
        assert outcomes[-20:] == ["whole"] * 20


@pytest.fixture(scope="module")
def instance():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=20, disposable=True) as server:
        yield server


def test_streams_come_as_they_are_made(instance):
    with Nginx([instance.port]) as nginx:
        came = []
        body = {"model": "echo", "prompt": PROMPT, "max_tokens": 40, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{nginx.url}/v1/completions", json=body, timeout=30) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    came.append(time.monotonic())
        assert came[-1] - came[0] > 0.6  # 40 tokens of 20 ms: not in one piece at the end
        assert len([1 for before, after in itertools.pairwise(came) if after - before > 0.005]) > 20


def test_a_client_that_leaves_nginx_frees_its_place(instance):
    with Nginx([instance.port]) as nginx:
        body = {"model": "echo", "prompt": PROMPT, "max_tokens": 900, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{nginx.url}/v1/completions", json=body, timeout=30) as response:
            lines = response.iter_lines()  # kept: when it goes, the connection does
            next(lines)
            assert scrape(instance.url).sum("llm_requests_running") == 1
        wait_until(lambda: scrape(instance.url).sum("llm_requests_running") == 0, 5, "a free place")


def test_without_any_instance_the_answer_is_json_that_says_so():
    with Nginx([free_port()]) as nginx:
        answer = httpx.post(f"{nginx.url}/v1/completions", json={"prompt": "x"}, timeout=10)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "2"
        with pytest.raises(openai.InternalServerError, match="No instance can be reached"):
            openai.OpenAI(base_url=f"{nginx.url}/v1", api_key="none", max_retries=0).models.list()


class _Mirror(http.server.BaseHTTPRequestHandler):
    """Answers with the headers it was sent."""

    def do_GET(self) -> None:
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror():
    with LocalServer(("127.0.0.1", 0), _Mirror) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


CLAIMS = {"X-Forwarded-For": "8.8.8.8", "X-Real-IP": "8.8.4.4", "Forwarded": "for=9.9.9.9", "X-Request-ID": "mine"}


def test_what_a_client_claims_of_its_address_is_dropped(mirror):
    with Nginx([mirror]) as nginx:
        seen = httpx.get(f"{nginx.url}/v1/models", headers=CLAIMS).json()
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert "8.8" not in str(seen)
    assert "9.9" not in str(seen)
    assert seen["x-request-id"] == "mine"
    assert seen["host"] == nginx.url.removeprefix("http://")


def test_what_a_trusted_proxy_says_of_it_is_believed(mirror):
    trusted = {
        "#set_real_ip_from 10.0.0.0/8;": "set_real_ip_from 127.0.0.1;",
        "#real_ip_header": "real_ip_header",
        "#real_ip_recursive": "real_ip_recursive",
    }
    with Nginx([mirror], trusted) as nginx:
        assert httpx.get(f"{nginx.url}/v1/models", headers=CLAIMS).json()["x-forwarded-for"] == "8.8.8.8"
        # The client's own claim comes before what the trusted proxy adds.
        chain = {"X-Forwarded-For": "1.2.3.4, 8.8.8.8"}
        assert httpx.get(f"{nginx.url}/v1/models", headers=chain).json()["x-forwarded-for"] == "8.8.8.8"


def test_answers_of_the_real_model_are_whole_when_the_instance_that_began_them_is_killed():
    settings = {"CONTEXT_LENGTH": 512, "MAX_PARALLEL_SEQUENCES": 2, "DEFAULT_MODEL": "smollm2-135m"}
    with contextlib.ExitStack() as stack:
        stays, goes = servers = [stack.enter_context(Server(**settings, wait=False, disposable=True)) for _ in range(2)]
        for server in servers:
            server.wait_healthy(100)
        body = {"messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_tokens": 24, "ignore_eos": True}
        expected = httpx.post(f"{stays.url}/v1/chat/completions", json=body, timeout=60).json()["choices"][0]["message"]["content"]
        with Nginx([stays.port, goes.port]) as nginx, ThreadPoolExecutor(6) as pool:
            answers = [pool.submit(httpx.post, f"{nginx.url}/v1/chat/completions", json=body, timeout=100) for _ in range(6)]
            wait_until(lambda: scrape(goes.url).sum("llm_requests_running") > 0, what="work for the instance to be killed")
            kill_at_once(goes)
            for answer in answers:
                assert answer.result().status_code == 200
                whole = answer.result().json()
                assert whole["usage"]["completion_tokens"] == 24
                # Later tokens may differ with who else was in the batch; the beginning is not in doubt.
                assert whole["choices"][0]["message"]["content"][:20] == expected[:20]


def test_one_address_has_so_many_requests_at_a_time():
    changes = {"limit_conn clients 256;": "limit_conn clients 2;"}
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=20, disposable=True) as server, Nginx([server.port], changes) as nginx:
        url, body = f"{nginx.url}/v1/completions", {"prompt": PROMPT, "ignore_eos": True, "max_tokens": 500, "stream": True}
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                assert stack.enter_context(httpx.stream("POST", url, json=body)).status_code == 200
            refused = httpx.post(url, json=body)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.headers["content-type"] == "application/json"
            assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        wait_until(lambda: httpx.post(url, json={"prompt": "x", "max_tokens": 1}).status_code == 200, 10, "a place")
