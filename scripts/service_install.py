"""What scripts/install-service does: makes this folder a service that starts with the machine, or takes it back. Run again, it updates."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import service_steps
from service_machine import Failed, Machine
from service_steps import Site, Step

COMMAND = "sudo ./scripts/install-service"


def main(arguments: list[str], machine: Machine, folder: str) -> int:
    """0: done. 1: refused, or a step failed. 2: not root, or a wrong argument."""
    parser = argparse.ArgumentParser(prog="scripts/install-service", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="show the steps and take none")
    parser.add_argument("--uninstall", action="store_true", help="take the installation back; models, logs, .env and .venv stay")
    asked = parser.parse_args(arguments)
    again = COMMAND + (" --uninstall" if asked.uninstall else "")
    if not asked.dry_run and not machine.is_root():
        print(f"scripts/install-service: this takes root. Run: {again}", file=sys.stderr)
        return 2
    env = (machine.read(f"{folder}/.env") or b"").decode(errors="replace")
    site = Site(machine.system, folder, service_steps.settings_of(env))
    refused = [*service_steps.refusals(machine, site, uninstall=asked.uninstall)]
    for refusal in refused:
        print(f"scripts/install-service: {refusal}", file=sys.stderr)
    if refused and (not asked.dry_run or site.system not in ("linux", "darwin")):
        return 1
    steps = service_steps.uninstall(machine, site) if asked.uninstall else service_steps.install(machine, site)
    if asked.dry_run:
        show(steps, folder)
        return 1 if refused else 0
    if not take(steps, machine, folder, again):
        return 1
    print(_taken_back(site) if asked.uninstall else _installed(site))
    return 0


def show(steps: list[Step], folder: str) -> None:
    print(f"cd {shlex.quote(folder)}")
    for step in steps:
        print(f"# {step.what}\n{step}" if step.what else step)


def take(steps: list[Step], machine: Machine, folder: str, again: str) -> bool:
    """Whether all were taken; where not, it is said what was done, what failed, and how to go on."""
    done: list[Step] = []
    for step in steps:
        if step.what:
            print(f"== {step.what}", flush=True)
        try:
            step.take(machine, folder)
        except (Failed, KeyboardInterrupt) as error:
            reason = str(error) or "interrupted"
            lines = [f"scripts/install-service: {reason}, in: {step}", *([step.remedy] if step.remedy else []), "Done before it:"]
            lines += [f"  {each}" for each in done] or ["  nothing"]
            lines.append(f"To go on, when the cause is gone: {again}. What is done already stays as it is.")
            if "--uninstall" not in again:
                lines.append(f"To take it back instead: {again} --uninstall")
            print("\n".join(lines), file=sys.stderr)
            return False
        done.append(step)
    return True


def _installed(site: Site) -> str:
    if site.system == "darwin":
        label = service_steps.LABELS[-1]
        look, stop = f"sudo launchctl print system/{label}", f"sudo launchctl bootout system/{label}"
    else:
        look, stop = f"systemctl status {site.instance}", f"sudo systemctl stop {site.instance}"
    return f"""Ready: {site.url}/v1
  runs as       {site.user}, from the start of the machine
  folder        {site.folder}   models in {site.settings.get("MODELS_DIR", "models")}, logs in logs, settings in .env
  its state     {look}
  stop          {stop}
  update        {COMMAND}   (also after a change of .env; it restarts the service)
  take it back  {COMMAND} --uninstall"""


def _taken_back(site: Site) -> str:
    return f"The service is taken back. {site.folder} stays, with models, logs, .env and .venv; they are root's."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Machine(), str(Path(__file__).resolve().parent.parent)))
