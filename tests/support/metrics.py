"""Reading what GET /metrics says, as Prometheus would."""

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Figures:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples with this name and these labels."""
        return sum(sample.value for sample in self._those(name, labels))

    def has(self, name: str, **labels: str) -> bool:
        return bool(self._those(name, labels))

    def series(self) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {(sample.name, tuple(sorted(sample.labels.items()))) for sample in self.samples}

    def _those(self, name: str, labels: dict[str, str]) -> list:
        return [sample for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()]


def scrape(url: str) -> Figures:
    response = httpx.get(f"{url}/metrics", timeout=10)
    assert response.status_code == 200, response.text
    return Figures(response.text)
