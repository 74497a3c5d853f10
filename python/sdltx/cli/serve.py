"""``sdltx-cli serve``: videos over HTTP, and a page."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sdltx

from .._files import is_file, is_folder
from ..library import folder_named
from .job import MODEL_OPTIONS, Job
from .options import add_command, message_options, model_options

if TYPE_CHECKING:
    from ..server.settings import Settings

TOKEN = "SDLTX_SERVER_TOKEN"
_LONGEST_TOKEN = 4096


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "serve",
        _serve,
        "make clips for programs and people that ask over HTTP: OpenAI's video interface, and a page",
        "sdltx-cli serve -m ltx-2.3-distilled:q4_k_m\n\nthen open http://127.0.0.1:8080 in a browser",
    )
    model_options(command)
    group = command.add_argument_group("where")
    group.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="own address (default: 127.0.0.1)")
    group.add_argument("--port", metavar="N", type=int, default=8080, help="TCP port, 0: a free one (default: 8080)")
    group.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a name that the server is called by in addresses, besides --host; repeat it for several",
    )
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"what requests have to show, on the first line of a file; {TOKEN} is the same. Needed where others than "
        "this machine can ask",
    )
    group.add_argument("--no-page", action="store_true", help="only the interface for programs")
    group = command.add_argument_group("files")
    group.add_argument(
        "--data",
        metavar="FOLDER",
        help="of the videos and the queue (default: sdltx/server in the user's data folder)",
    )
    group.add_argument(
        "--files",
        metavar="FOLDER",
        action="append",
        default=[],
        help="whose LoRAs and upscalers requests may name; repeat it for several",
    )
    group.add_argument("--keep-days", metavar="N", type=float, help="delete videos after N days (default: never)")
    group = command.add_argument_group("limits")
    group.add_argument("--queue", metavar="N", type=int, default=100, help="videos that may wait (default: 100)")
    group.add_argument(
        "--together", metavar="N", type=int, default=4, help="videos whose prompts are encoded together (default: 4)"
    )
    group.add_argument("--upload", metavar="MIB", type=int, default=256, help="of files in a request (default: 256)")
    group.add_argument(
        "--largest", metavar="WxH", default="1920x1088", help="as many pixels at most (default: 1920x1088)"
    )
    group.add_argument("--longest", metavar="S", type=float, default=30.0, help="seconds of a clip (default: 30)")
    group.add_argument("--most-steps", metavar="N", type=int, default=100, help="steps of a clip (default: 100)")
    message_options(command)


def _serve(job: Job) -> None:
    try:
        from ..server import web
        from ..server.app import Server
    except ImportError as error:
        raise sdltx.InvalidRequestError(
            f'[serve] the package {error.name} is missing; install what the server needs: pip install "sdltx[server]"'
        ) from None
    settings = _settings(job)
    tempfile.tempdir = str(settings.folder)  # where uploads have room, too
    with web.listening(job.args.host, job.args.port) as listening:
        server = Server(settings)
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host

        async def serve() -> None:
            async with server.running():
                model = server.scheduler.engine.model
                if model["note"]:
                    job.note(f"note: {model['note']}")
                listening.listen()  # who reads the next line may ask at once
                job.note(f"serving {model['model']} on {model['device']} at http://{shown}:{port}; Ctrl-C ends it")
                await web.answer(
                    server.app, listening, verbose=job.args.verbose > 0, stopping=server.scheduler.hub.close
                )
            job.note("stopped; what waits goes on with the next start")

        asyncio.run(serve())


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def _settings(job: Job) -> Settings:
    from ..server.settings import Limits, Settings

    args = job.args
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", args.largest)
    if size is None or min(map(int, size.groups())) < 64:
        raise sdltx.InvalidRequestError(f"[serve] --largest {args.largest!r} is no size such as 1920x1088")
    for name, least in (("queue", 1), ("together", 1), ("upload", 1), ("most_steps", 1), ("longest", 0.1)):
        if not least <= getattr(args, name) <= 1_000_000:
            flag = f"--{name.replace('_', '-')}"
            raise sdltx.InvalidRequestError(
                f"[serve] {flag} {getattr(args, name):g} is out of range; use {least:g} or more"
            )
    if args.keep_days is not None and not 0 < args.keep_days <= 1_000_000:
        raise sdltx.InvalidRequestError(f"[serve] --keep-days {args.keep_days:g} is out of range; use more than 0")
    token = _token(args.token_file)
    hosts = {"localhost", "127.0.0.1", "[::1]"}
    if not _is_loopback(args.host):
        if token is None:
            raise sdltx.InvalidRequestError(
                f"[serve] everybody who reaches {args.host} could use this server; set {TOKEN} or give --token-file"
            )
        if args.host in ("0.0.0.0", "::") and not args.allow_host:
            raise sdltx.InvalidRequestError(
                f"[serve] {args.host} is no name that the server is called by; give it with --allow-host"
            )
    for name in args.allow_host:
        if not re.fullmatch(r"[\w.-]+|\[[0-9A-Fa-f:.]+\]", name):
            raise sdltx.InvalidRequestError(
                f"[serve] --allow-host {name!r} is no name of a host; leave out http:// and the port"
            )
    hosts.add(f"[{args.host}]".lower() if ":" in args.host else args.host.lower())
    hosts |= {name.lower() for name in args.allow_host}
    folders = [folder_named("serve", name) for name in args.files]
    for folder in folders:
        if not is_folder(folder):
            raise sdltx.InvalidRequestError(f"[serve] --files {folder} is no folder")
    limits = Limits(
        queue=args.queue,
        upload=args.upload << 20,
        pixels=int(size[1]) * int(size[2]),
        seconds=args.longest,
        steps=args.most_steps,
    )
    load = {name: value for name in MODEL_OPTIONS if (value := getattr(args, name)) is not None}
    return Settings(
        folder=folder_named("serve", args.data) if args.data else _data_folder(),
        model=tuple(os.path.abspath(path) for path in args.model),  # noqa: PTH100 (names need not be tidy)
        load=load,
        files=tuple(folders),
        token=token,
        hosts=frozenset(hosts),
        together=args.together,
        keep_days=args.keep_days,
        page=not args.no_page,
        limits=limits,
    )


def _data_folder() -> Path:
    import platformdirs

    return platformdirs.user_data_path("sdltx") / "server"


def _token(file: str | None) -> str | None:
    """The token of the file, else of the environment."""
    text = os.environ.get(TOKEN)
    if file is not None:
        if not is_file(file):
            raise sdltx.InvalidRequestError(f"[serve] --token-file {file} is no file")
        try:
            with Path(file).open("rb") as opened:
                text = opened.read(_LONGEST_TOKEN).decode().splitlines()[0].strip()
        except (OSError, UnicodeError, IndexError):
            text = ""
        if not text:
            raise sdltx.InvalidRequestError(f"[serve] --token-file {file} has no token on its first line")
    return text or None
