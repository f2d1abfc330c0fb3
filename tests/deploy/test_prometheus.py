"""A real Prometheus scrapes a real run: it understands every figure, evaluates every rule, and answers every panel of the dashboard."""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx
import pytest
import yaml

from src.settings import ROOT
from tests.support.programs import program
from tests.support.server import Server, free_port, wait_until

pytestmark = pytest.mark.slow

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


def promtool(*arguments: object) -> str:
    done = subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """A Prometheus with our configuration, but another target, and a scrape and an evaluation each second."""

    def __init__(self, target: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="test-prometheus-"))
        config = (DEPLOY / "prometheus/prometheus.yml").read_text()
        assert config.count("127.0.0.1:8001") == 1
        config = config.replace("127.0.0.1:8001", target).replace("15s", "1s")
        (self.folder / "prometheus.yml").write_text(config)
        shutil.copy(DEPLOY / "prometheus/rules.yml", self.folder)
        address = f"127.0.0.1:{free_port()}"
        self.http = httpx.Client(base_url=f"http://{address}/api/v1", timeout=10)
        self.process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/data",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdin=subprocess.DEVNULL,
        )

    def query(self, expression: str) -> list[dict]:
        answer = self.http.get("/query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        return answer["data"]["result"]

    def value(self, expression: str) -> float | None:
        """Of an expression that gives one sample; None without any."""
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else None

    def is_up(self) -> bool:
        try:
            return self.value("up") == 1
        except (httpx.TransportError, json.JSONDecodeError):  # until it has read its storage, it says so in plain text
            return False

    def close(self) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def service():
    with Server(INFERENCE_ENGINE="echo", WORKERS=2, ECHO_STEP_MS=5, disposable=True) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(service):
    prometheus = Prometheus(service.url.removeprefix("http://"))
    try:
        wait_until(prometheus.is_up, what="the first scrape")
        for _ in range(2):  # so that there is a rate between two scrapes
            for number in range(6):
                service.client().completions.create(model="echo", prompt=f"prompt {number}", max_tokens=20)
            seen = prometheus.value("count_over_time(up[5m])") or 0
            wait_until(lambda seen=seen: (prometheus.value("count_over_time(up[5m])") or 0) >= seen + 2, what="two more scrapes")
        yield prometheus
    finally:
        prometheus.close()


def test_configuration_and_rules_are_what_promtool_accepts():
    assert "SUCCESS" in promtool("check", "config", "deploy/prometheus/prometheus.yml")


def test_each_alert_fires_when_its_target_is_missed_and_only_then():
    promtool("test", "rules", "deploy/prometheus/rules.test.yml")
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    tests = yaml.safe_load((DEPLOY / "prometheus/rules.test.yml").read_text())["tests"]
    assert {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]} == alerts


def test_what_is_exposed_has_no_fault_that_promtool_knows(service):
    text = httpx.get(f"{service.url}/metrics").text
    done = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True)
    # vLLM's names are as they are: a colon, and a counter of tokens that are a percentage's share.
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("vllm:")]
    assert not complaints


def test_a_scrape_is_complete_and_small(prometheus):
    assert prometheus.value("up") == 1
    assert prometheus.value('sum(llm_requests_total{route="POST /v1/completions", status="200"})') == 12
    assert prometheus.value("sum(vllm:request_success_total)") == 12
    assert prometheus.value("scrape_samples_scraped") < 1500
    assert prometheus.value("scrape_duration_seconds") < 1


def test_every_rule_is_evaluated_without_an_error(prometheus):
    def evaluated() -> list[dict] | None:
        groups = prometheus.http.get("/rules").json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else None

    rules = wait_until(evaluated, what="the first evaluation of all rules")
    assert len(rules) == 19
    assert not [rule for rule in rules if rule["health"] != "ok"]
    for name in (
        "llm_requests:rate5m",
        "llm_success:ratio_rate5m",
        "llm_request_seconds:p95_5m",
        "llm_cpu:ratio_rate5m",
        "llm_memory:ratio",
    ):
        wait_until(lambda name=name: prometheus.value(f"instance:{name}") is not None, what=f"a figure of {name}")
    assert prometheus.value("instance:llm_success:ratio_rate5m") == 1


def fill(expression: str) -> str:
    """As Grafana does, with all of everything chosen."""
    for name in ("job", "instance", "model"):
        expression = expression.replace(f"${name}", ".*")
    expression = expression.replace("$__rate_interval", "30s")
    assert "$" not in expression
    return expression


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_every_panel_of_the_dashboard_has_figures(prometheus, title, expression):
    if "llm_gpu" in expression:
        assert prometheus.query(fill(expression)) == []  # understood; there is no GPU here
    elif "unloads" in expression:
        assert prometheus.query(fill(expression)) == []  # nothing was unloaded
    else:
        wait_until(lambda: prometheus.query(fill(expression)), what=f"a figure for {title}")


def test_the_dashboard_is_one_that_grafana_can_import():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert max(x for x, _ in cells) < 24
        taken |= cells
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == names


def test_the_dashboard_asks_for_nothing_that_is_not_exposed(service):
    exposed = set(re.findall(r"^# TYPE (\S+)", httpx.get(f"{service.url}/metrics").text, re.MULTILINE))
    for source in (json.dumps(DASHBOARD), (DEPLOY / "prometheus/rules.yml").read_text()):
        for name in re.findall(r"\bllm_\w+(?=[\[{)\s]|_bucket)", source):
            assert name in exposed or re.sub(r"_(bucket|sum|count)$", "", name) in exposed, name
