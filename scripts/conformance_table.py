"""Outcomes of cases as a table of features by columns. Knows no case and runs none."""

Column = dict[str, dict[str, str]]  # feature: case: passed, failed or skipped
GREEN = "✓"


def table(columns: dict[str, Column]) -> str:
    """Markdown. A cell is green only where all cases that any column ran of this feature ran here and passed. No columns: ""."""
    if not columns:
        return ""
    features = _features(columns)
    lines = ["| feature | cases | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for feature in features:
        cases = _cases(columns, feature)
        cells = [cell(column.get(feature, {}), cases) for column in columns.values()]
        lines.append(f"| {feature} | {len(cases)} | " + " | ".join(cells) + " |")
    every = {(feature, case) for feature in features for case in _cases(columns, feature)}
    sums = [str(sum(outcome == "passed" for cases in column.values() for outcome in cases.values())) for column in columns.values()]
    lines.append(f"| all | {len(every)} | " + " | ".join(sums) + " |")
    return "\n".join(lines)


def aligned(table: str) -> str:
    """The same table for a terminal."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[2:]])


def cell(outcomes: dict[str, str], cases: set[str]) -> str:
    """✓, or how many of the cases passed; – where none ran."""
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    if not any(outcome in ("passed", "failed") for outcome in outcomes.values()):
        return "–"
    return GREEN if passed == len(cases) else f"{passed} of {len(cases)}"


def _features(columns: dict[str, Column]) -> list[str]:
    return sorted({feature for column in columns.values() for feature in column}, key=str.lower)


def _cases(columns: dict[str, Column], feature: str) -> set[str]:
    return {case for column in columns.values() for case in column.get(feature, {})}
