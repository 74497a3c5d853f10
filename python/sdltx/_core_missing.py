"""Why the compiled core cannot be imported."""

from __future__ import annotations

import platform
import re
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


def explained(error: ImportError) -> ImportError:
    """Returns the error, or one that says for which Pythons this installation has a core, if this is none of them."""
    folder = Path(__file__).parent
    if any((folder / f"_core{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
        return error
    built = sorted(folder.glob("_core.cpython-*.so"))
    versions = [re.sub(r"^_core\.cpython-(\d)(\d+).*", r"\1.\2", path.name) for path in built]
    have = f"it has one for {', '.join(versions)}" if versions else "it has none"
    return ImportError(
        f"sdltx has no compiled core for Python {platform.python_version()} here ({have}); install it with this Python"
    )
