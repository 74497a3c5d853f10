"""``sdltx-cli completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

from typing import Any

from .job import Job
from .options import add_command, message_options

_SHELLS = ("bash", "zsh", "tcsh")


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "completion",
        _completion,
        "print what a shell needs to complete commands and options",
        'eval "$(sdltx-cli completion bash)"\n  sdltx-cli completion zsh > ~/.zfunc/_sdltx-cli',
    )
    command.add_argument("shell", choices=_SHELLS, help="the shell")
    message_options(command)


def _completion(job: Job) -> None:
    import shtab

    print(shtab.complete(job.args.root, shell=job.args.shell))
