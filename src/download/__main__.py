"""`python -m src.download`: what scripts/download_model.py runs, for the manager."""

import sys

from src.download.command import main
from src.settings import Settings

sys.exit(main(Settings.load().models_path))
