"""``sdltx-cli doctor`` and ``sdltx-cli devices``: what works here."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import sdltx
from sdltx.doctor import device_line, diagnose

from .job import Job
from .options import add_command, message_options


def add(commands: Any) -> None:
    """Adds the commands."""
    for name, run, purpose in (
        ("devices", _devices, "list what can compute here, by the names that --device takes"),
        ("doctor", _doctor, "tell what this installation can do, what it lacks and how to mend it"),
    ):
        command = add_command(commands, name, run, purpose, f"sdltx-cli {name} --json")
        command.add_argument("--json", action="store_true", help="print it as JSON")
        message_options(command)


def _devices(job: Job) -> None:
    found = sdltx.devices()
    if job.args.json:
        print(json.dumps([asdict(device) for device in found], indent=1))
    else:
        for device in found:
            print(device_line(device))


def _doctor(job: Job) -> None:
    found = diagnose()
    print(json.dumps(found.to_dict(), indent=1) if job.args.json else found)
    if found.problems:
        count = len(found.problems)
        raise sdltx.BackendError(f"[doctor] {count} problem{'s' if count > 1 else ''}, see above")
