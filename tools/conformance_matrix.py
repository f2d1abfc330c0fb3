"""Writes the matrix of features and engines into docs/API.md, from the outcomes that runs of tests/conformance left.

pytest tests/conformance --engine llama_cpp --results docs/conformance/llama_cpp.json     # and so on for each engine
python tools/conformance_matrix.py            # prints the table and writes it between the document's marks
python tools/conformance_matrix.py --check    # writes nothing; exits with 1 where the document says something else
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from conformance_table import Column, table  # noqa: E402 - what scripts/verify.py shows as well

RESULTS = ROOT / "docs" / "conformance"
DOCUMENT = ROOT / "docs" / "API.md"
BEGIN, END = "<!-- conformance: written by tools/conformance_matrix.py -->\n", "\n<!-- end of conformance -->"
ORDER = ["llama_cpp", "mlx", "vllm", "echo"]  # then what is not ours


def read(folder: Path) -> dict[str, Column]:
    """All columns of all files, ours first."""
    columns: dict[str, Column] = {}
    for path in sorted(folder.glob("*.json")):
        columns |= json.loads(path.read_text())
    return dict(sorted(columns.items(), key=lambda item: (ORDER.index(item[0]) if item[0] in ORDER else len(ORDER), item[0])))


def written(document: str, matrix: str) -> str:
    """The document with the matrix between its marks."""
    before, rest = document.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + matrix + END + after


def main() -> int:
    matrix = table(read(RESULTS))
    document = DOCUMENT.read_text()
    new = written(document, matrix)
    if "--check" in sys.argv[1:]:
        return int(new != document)
    print(matrix)
    DOCUMENT.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
