"""``sdltx-cli embed``: how other programs are built with libsdltx."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import sdltx
from sdltx import _core

from .job import Job
from .options import add_command, message_options


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "embed",
        _embed,
        "print what a compiler needs for programs in C and C++ that use libsdltx",
        "cc clip.c -o clip $(sdltx-cli embed --cflags --libs)\n"
        "  cmake -S . -B build -Dsdltx_DIR=$(sdltx-cli embed --cmakedir)\n"
        "  PKG_CONFIG_PATH=$(sdltx-cli embed --pkgconfigdir) pkg-config --cflags --libs sdltx",
    )
    group = command.add_argument_group("what to print (several in one line; default: all, a line each)")
    group.add_argument("--cflags", action="store_true", help="options for compiling")
    group.add_argument("--libs", action="store_true", help="options for linking; the program finds the library here")
    group.add_argument("--libdir", action="store_true", help="folder of libsdltx.so")
    group.add_argument("--cmakedir", action="store_true", help="folder for find_package(sdltx)")
    group.add_argument("--pkgconfigdir", action="store_true", help="folder for pkg-config")
    message_options(command)


def _embed(job: Job) -> None:
    root = Path(_core.__file__).parent  # where the build lies; an editable install has its Python elsewhere
    if not (root / "include" / "sdltx.h").exists():
        raise sdltx.BackendError("[embed] this installation lacks sdltx.h; reinstall the package")
    quoted = shlex.quote(str(root))
    told = {
        "cflags": f"-I{quoted}/include",
        "libs": f"-L{quoted} -lsdltx -Wl,-rpath,{quoted}",
        "libdir": str(root),
        "cmakedir": str(root / "cmake"),
        "pkgconfigdir": str(root / "pkgconfig"),
    }
    wanted = [text for name, text in told.items() if getattr(job.args, name)]
    if wanted:
        print(" ".join(wanted))
    else:
        for name, text in told.items():
            print(f"{name:13} {text}")
