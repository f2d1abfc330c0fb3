#!/usr/bin/env python3
"""Prints the operator's token of the server that this user runs here, which has to be sent where there are no keys:

    curl -H "Authorization: Bearer $(.venv/bin/python scripts/operator_token.py)" http://127.0.0.1:8001/v1/admin/log-level

PORT (and RUN_DIR, where it is set) say which server, from the environment or .env as for the server itself.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import operator_token
from src.errors import SettingsError
from src.settings import ROOT, Settings


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        settings = Settings.load()
        run_dir = str(ROOT / settings.run_dir) if settings.run_dir else ""
        print(operator_token.find(run_dir, settings.port).read_text().strip())
    except (SettingsError, OSError) as error:
        print(f"operator_token.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
