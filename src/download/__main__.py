"""`python -m src.download`: what scripts/download_model.py runs, for the manager."""

import sys

from src.download.command import main
from src.download.reason import keep_log
from src.settings import Settings

settings = Settings.load()
keep_log(settings.log_path, settings.log_retention_days, settings.log_max_bytes)
sys.exit(main(settings.models_path))
