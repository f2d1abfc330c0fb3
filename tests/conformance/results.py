"""The outcome of every case, by feature and by what was tested. Knows no case."""

import json
from pathlib import Path
from typing import Any

import pytest

STREAMED = "streamed and plain answers are equal"


class Results:
    """A pytest plugin. A case counts once: as failed where its setup or its end fails."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._cases: dict[tuple[str, str, str], str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        marker = item.get_closest_marker("feature")
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if marker is not None and "column" in parameters:
            feature = STREAMED if parameters.get("either") == "streamed" else marker.args[0]
            place = parameters["column"], feature, _name(item, parameters["column"])
            known = self._cases.get(place)
            if report.failed or known is None or (known == "passed" and report.skipped):
                self._cases[place] = report.outcome
        return report

    def pytest_sessionfinish(self) -> None:
        if self._path is None:
            return
        columns: dict[str, dict[str, dict[str, str]]] = {}
        for (column, feature, case), outcome in sorted(self._cases.items()):
            columns.setdefault(column, {}).setdefault(feature, {})[case] = outcome
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(columns, indent=1, ensure_ascii=False) + "\n")


def _name(item: pytest.Item, column: str) -> str:
    """The case's name, the same whatever is tested."""
    path, name = item.nodeid.split("::", 1)
    function, _, parameters = name.partition("[")
    kept = [part for part in parameters.removesuffix("]").split("-") if part != f"on {column}"]
    return f"{Path(path).stem}::{function}" + (f"[{'-'.join(kept)}]" if any(kept) else "")
