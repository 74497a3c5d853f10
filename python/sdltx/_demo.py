"""The model that is part of the package."""

from __future__ import annotations

from pathlib import Path

from .errors import ModelFileError

FOLDER = Path(__file__).parent / "demo"


def demo_files() -> list[Path]:
    """Returns its files. Raises ModelFileError for a build without them."""
    files = sorted(path for kind in ("*.gguf", "*.safetensors") for path in FOLDER.glob(kind))
    if not files:
        raise ModelFileError("[load] no model is given and this build has none built in; pass the files of a model")
    return [*files, FOLDER / "gemma"]
