"""What watches the service and what stands before it goes on working where there are keys, https, and proxies that are believed."""

import httpx
import pytest

from tests.deploy.test_services import Systemd
from tests.support.certificate import make_certificate
from tests.support.metrics import scrape
from tests.support.nginx import Nginx
from tests.support.server import Server, free_port, wait_until

pytestmark = pytest.mark.slow

KEY = "a-key-of-the-tests-own"
ASK = {"model": "echo", "prompt": "x"}
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(("setting", "without_key"), [({}, 401), ({"METRICS_REQUIRE_KEY": "false"}, 200)])
def test_the_metrics_ask_for_a_key_where_there_are_keys_unless_they_are_told_not_to(setting, without_key):
    with Server(INFERENCE_ENGINE="echo", API_KEY=KEY, key=KEY, disposable=True, **setting) as server:
        assert httpx.get(f"{server.url}/metrics").status_code == without_key
        assert httpx.get(f"{server.url}/metrics", headers=BEARER).status_code == 200


def test_an_address_of_their_own_asks_for_no_key():
    port = free_port()
    with Server(INFERENCE_ENGINE="echo", API_KEY=KEY, key=KEY, METRICS_ADDRESS=f"127.0.0.1:{port}", disposable=True):
        assert scrape(f"http://127.0.0.1:{port}").has("llm_requests_total")


def test_systemd_hears_the_same_of_a_service_that_speaks_https_on_all_addresses(tmp_path):
    certificate, key = make_certificate(tmp_path)
    systemd = Systemd(tmp_path)
    settings = {"TLS_CERTFILE": certificate, "TLS_KEYFILE": key, "API_KEY": KEY, "HOST": "0.0.0.0", "WATCHDOG_USEC": 900_000}
    try:
        with Server(INFERENCE_ENGINE="echo", NOTIFY_SOCKET=systemd.path, wait=False, disposable=True, **settings):
            systemd.wait_for("READY=1")
            systemd.wait_for("WATCHDOG=1")
            systemd.wait_for("WATCHDOG=1")
    finally:
        systemd.close()


def test_the_clients_address_comes_through_nginx_and_nobody_can_claim_another():
    before_nginx = {
        "#set_real_ip_from 10.0.0.0/8;": "set_real_ip_from 127.0.0.1;",
        "#real_ip_header": "real_ip_header",
        "#real_ip_recursive": "real_ip_recursive",
    }
    claim = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7"}  # the client's own, then what the proxy before nginx saw

    def seen(server: Server, id: str) -> str:
        lines = wait_until(lambda: [line for line in server.log("api_requests").splitlines() if f"id={id} " in line], what="the log's line")
        return lines[0].split(" client=")[1].split()[0]

    with Server(INFERENCE_ENGINE="echo", TRUSTED_PROXIES="127.0.0.1", disposable=True) as server:
        with Nginx([server.port]) as nginx:
            httpx.post(f"{nginx.url}/v1/completions", json=ASK, headers={**claim, "X-Request-ID": "plain"}).raise_for_status()
        with Nginx([server.port], before_nginx) as nginx:
            httpx.post(f"{nginx.url}/v1/completions", json=ASK, headers={**claim, "X-Request-ID": "trusted"}).raise_for_status()
        assert seen(server, "plain") == "127.0.0.1"
        assert seen(server, "trusted") == "203.0.113.7"


def test_with_keys_nginx_passes_them_on():
    with Server(INFERENCE_ENGINE="echo", API_KEY=KEY, key=KEY, disposable=True) as server, Nginx([server.port]) as nginx:
        assert httpx.post(f"{nginx.url}/v1/completions", json=ASK).status_code == 401
        assert httpx.post(f"{nginx.url}/v1/completions", json=ASK, headers=BEARER).status_code == 200
