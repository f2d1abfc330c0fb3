"""The outcome of every case, by feature and by what was tested. Knows no case."""

import json
from pathlib import Path
from typing import Any

import pytest

WIDTH = 300  # characters of a reason
STREAMED = "streamed and plain answers are equal"


class Results:
    """A pytest plugin. A case counts once: as failed where its setup or its end fails."""

    def __init__(self, path: Path | None, *, explain: bool) -> None:
        """With `explain`, the end of the run says of each case that failed what was wrong, by features."""
        self._path = path
        self._explain = explain
        self._cases: dict[tuple[str, str, str], str] = {}
        self._reasons: dict[str, dict[str, str]] = {}  # feature: case: what was wrong

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        marker = item.get_closest_marker("feature")
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if marker is not None and "column" in parameters:
            feature = STREAMED if parameters.get("either") == "streamed" else marker.args[0]
            place = parameters["column"], feature, case_name(item.nodeid, parameters["column"])
            known = self._cases.get(place)
            if report.failed or known is None or (known == "passed" and report.skipped):
                self._cases[place] = report.outcome
            if report.failed:
                self._reasons.setdefault(feature, {}).setdefault(place[2], _reason(call))
        return report

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for feature, cases in sorted(self._reasons.items()) if self._explain else ():
            terminalreporter.write_sep("-", feature)
            for case, reason in cases.items():
                terminalreporter.write_line(f"{case}\n    {reason}")

    def pytest_sessionfinish(self) -> None:
        if self._path is None:
            return
        columns: dict[str, dict[str, dict[str, str]]] = {}
        for (column, feature, case), outcome in sorted(self._cases.items()):
            columns.setdefault(column, {}).setdefault(feature, {})[case] = outcome
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(columns, indent=1, ensure_ascii=False) + "\n")


def _reason(call: pytest.CallInfo[None]) -> str:
    """One line: what pytest says of the comparison, or the exception."""
    assert call.excinfo
    lines = call.excinfo.exconly(tryshort=True).strip().splitlines() or [call.excinfo.typename]
    reason = lines[0].removeprefix("AssertionError: ")
    if reason in ("AssertionError", "assert False"):
        reason = str(call.excinfo.traceback[-1].statement).strip()
    return reason[:WIDTH]


def case_name(nodeid: str, column: str) -> str:
    """The same whatever is tested."""
    path, name = nodeid.split("::", 1)
    function, _, parameters = name.partition("[")
    kept = f"-{parameters.removesuffix(']')}".replace(f"-on {column}", "", 1).removeprefix("-")
    return f"{Path(path).stem}::{function}" + (f"[{kept}]" if kept else "")
