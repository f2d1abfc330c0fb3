"""python run.py --mode prod|dev: becomes Gunicorn, which checks the settings. Knows nothing of what is served."""

import argparse
import os
import sys

from src import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the models in models/ by OpenAI's API.")
    parser.add_argument("--mode", choices=["prod", "dev"], default="prod", help="dev reloads the HTTP code when it changes")
    mode = parser.parse_args().mode
    if mode == "dev":
        os.environ["DEBUG"] = "true"
    os.chdir(ROOT)
    # exec: the process that systemd, launchd or a shell started is Gunicorn's master, and gets their signals.
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "src.api.app:application"])


if __name__ == "__main__":
    main()
