"""A clip, a :class:`sdltx.Video`, in front of somebody: in a notebook, or in the system's player."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from .errors import BackendError
from .progress import in_notebook

_LARGEST = 64 << 20  # bytes that a notebook keeps of a clip
_shown: list[subprocess.Popen[bytes]] = []  # that may still be open
_PLAYERS = ("xdg-open", "open", "mpv", "ffplay", "vlc")


def html(video: Any) -> str:
    """Returns it as a page shows it: the clip itself, or what it is if it is too large to be in a notebook."""
    if not len(video.frames):
        return _sound(video)
    data = _bytes(video, ".mp4")
    if len(data) > _LARGEST:
        return f"<p>{escape(repr(video))}: too large to be shown here; save it</p>"
    width = min(video.frames.shape[2], 960)
    return (
        f'<video controls loop width="{width}" src="data:video/mp4;base64,{base64.b64encode(data).decode()}"></video>'
    )


def _sound(video: Any) -> str:
    data = _bytes(video, ".wav")
    return f'<audio controls src="data:audio/wav;base64,{base64.b64encode(data).decode()}"></audio>'


def _bytes(video: Any, suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clip{suffix}"
        video.save(path)
        return path.read_bytes()


def show(video: Any) -> None:
    """Shows it. Raises BackendError where nothing is there to show it with."""
    if in_notebook():
        notebook = import_module("IPython.display")
        notebook.display(notebook.HTML(html(video)))
        return
    player = next((found for name in _PLAYERS if (found := shutil.which(name))), None)
    if player is None:
        raise BackendError(f"[show] none of {', '.join(_PLAYERS)} is installed to show it; save it to a file")
    # It stays: the player may read it long after this returns.
    path = Path(tempfile.mkdtemp(prefix="sdltx-")) / ("clip.mp4" if len(video.frames) else "clip.wav")
    video.save(path)
    nothing = subprocess.DEVNULL
    _shown[:] = [one for one in _shown if one.poll() is None]
    _shown.append(
        subprocess.Popen([player, str(path)], stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
    )
