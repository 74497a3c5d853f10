"""Model files that are here: where they are looked for, and which of them make up a set. Nothing is downloaded."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _arguments
from ._files import exists, is_file, is_folder
from .errors import InvalidRequestError, ModelFileError

if TYPE_CHECKING:
    from .model_sets import ModelSet, PublishedFile

_logger = logging.getLogger("sdltx")
_SUFFIXES = (".safetensors", ".gguf")
EXTRAS = "extras"
"""Folder of upscalers and LoRAs in that of a repository."""
_DEPTH = 6  # folders below a place that are looked into
_COMFY_FOLDERS = (
    *("checkpoints", "diffusion_models", "unet", "text_encoders", "clip", "vae", "loras"),
    *("latent_upscale_models", "upscale_models"),
)


@dataclass(frozen=True)
class Place:
    """A folder where models may lie."""

    folder: Path
    what: str
    """"SDLTX_MODELS", "own folder", "ComfyUI" or "Hugging Face cache"."""


def own_folder() -> Path:
    """Returns where downloads go: the first folder of ``SDLTX_MODELS``, or one in the user's data folder."""
    return (_named_folders() or [_data_folder()])[0]


def _data_folder() -> Path:
    import platformdirs

    return platformdirs.user_data_path("sdltx") / "models"


def _named_folders() -> list[Path]:
    names = os.environ.get("SDLTX_MODELS", "").split(os.pathsep)
    return [folder_named("SDLTX_MODELS", name) for name in names if name]


def folder_named(where: str, name: str) -> Path:
    """Returns an absolute path; ~ is somebody's home. Raises InvalidRequestError where that is not known."""
    try:
        return Path(name).expanduser().absolute()
    except RuntimeError:
        raise InvalidRequestError(f"[{where}] there is no user of {name!r}; write the folder out") from None


def places() -> list[Place]:
    """Returns where models are looked for, in this order, as far as it is there."""
    found = [Place(folder, "SDLTX_MODELS") for folder in _named_folders()]
    found += [Place(_data_folder(), "own folder")]
    found += [Place(folder, "ComfyUI") for folder in _comfy_folders()]
    found += [Place(_hub_cache(), "Hugging Face cache")]
    different: dict[str, Place] = {}
    for place in found:
        if is_folder(place.folder):
            different.setdefault(os.path.realpath(place.folder), place)
    return list(different.values())


def _hub_cache() -> Path:
    """As huggingface-hub finds it, which need not be installed for this."""
    variables = os.environ
    if named := variables.get("HF_HUB_CACHE") or variables.get("HUGGINGFACE_HUB_CACHE"):
        return folder_named("HF_HUB_CACHE", named)
    base = Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return folder_named("HF_HOME", str(variables.get("HF_HOME") or base)) / "hub"


def _comfy_folders() -> Iterator[Path]:
    """Model folders of ComfyUI, which lies where COMFYUI_PATH says or in the home folder."""
    named = os.environ.get("COMFYUI_PATH")
    roots = [folder_named("COMFYUI_PATH", named)] if named else [Path.home() / name for name in ("ComfyUI", "comfyui")]
    for root in roots:
        for name in _COMFY_FOLDERS:
            yield root / "models" / name
        yield from _more_comfy_folders(root / "extra_model_paths.yaml")


def _more_comfy_folders(path: Path) -> list[Path]:
    """Those that the file names: sections of ``base_path`` and folders below it, several in lines of a text."""
    if not is_file(path):
        return []
    try:
        import yaml

        sections = yaml.safe_load(path.read_text(errors="replace"))
    except Exception as error:  # somebody else's file, with whatever in it; or there is no yaml
        _logger.info("%s is not read: %s", path, error)
        return []
    found = []
    for section in sections.values() if isinstance(sections, dict) else ():
        if not isinstance(section, dict):
            continue
        # Values are texts; what is nested in itself would be one without an end.
        texts = {name: value for name, value in section.items() if isinstance(value, str)}
        base = os.path.expandvars(os.path.expanduser(texts.get("base_path", "")))  # noqa: PTH111 (may have none)
        for name in _COMFY_FOLDERS:
            for line in texts.get(name, "").splitlines():
                if line.strip():
                    # Relative to the file, as ComfyUI takes them.
                    found.append(path.parent / base / line.strip())
    return found


@dataclass
class Index:
    """The model files of all places, by name."""

    places: Sequence[Place] = field(default_factory=places)
    files: dict[str, list[Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place in self.places:
            for path in _model_files(place.folder):
                self.files.setdefault(path.name.lower(), []).append(path)

    def find(self, wanted: PublishedFile) -> Path | None:
        """Returns where a published file lies, or None: the first of its name."""
        if not wanted.path:
            return next(self._folders(wanted.repository), None)
        return next(iter(self.files.get(wanted.name.lower(), ())), None)

    def _folders(self, repository: str) -> Iterator[Path]:
        """Folders that hold the text encoder of a repository, complete ones."""
        for place in self.places:
            if place.what == "Hugging Face cache":
                candidates = sorted(place.folder.glob(f"models--{repository.replace('/', '--')}/snapshots/*"))
            else:
                candidates = [place.folder / repository, place.folder / repository.split("/")[1]]
            yield from (folder for folder in candidates if is_complete_folder(folder))


def is_complete_folder(folder: Path) -> bool:
    """Whether a folder has a config and all the weights that its index names."""
    if not is_file(folder / "config.json"):
        return False
    listing = folder / "model.safetensors.index.json"
    if not is_file(listing):
        return is_file(folder / "model.safetensors")
    try:
        weights: dict[str, Any] = json.loads(listing.read_text())["weight_map"]
        return bool(weights) and all(is_file(folder / Path(str(name)).name) for name in set(weights.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _model_files(folder: Path) -> Iterator[Path]:
    """Files of models in a folder and those below it; links are followed, circles of them are not."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen or len(Path(root).relative_to(folder).parts) >= _DEPTH:
            folders.clear()
        if real in seen:
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(_SUFFIXES) and is_file(Path(root) / name):
                yield Path(root) / name


@dataclass(frozen=True)
class LocalSet:
    """A set of files, and what of it is here."""

    wanted: ModelSet
    found: dict[PublishedFile, Path]

    @property
    def missing(self) -> tuple[PublishedFile, ...]:
        """Files that a clip cannot be made without and that are not here."""
        return tuple(file for file in self.wanted.needed if file not in self.found)


def local_sets(index: Index | None = None) -> list[LocalSet]:
    """Returns all sets that are known, with what of them is here."""
    from . import model_sets

    index = index or Index()
    return [_local(one, index) for one in model_sets.SETS]


def _local(wanted: ModelSet, index: Index) -> LocalSet:
    return LocalSet(wanted, {file: path for file in wanted.files if (path := index.find(file)) is not None})


def expanded(where: str, paths: Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """Returns paths with the files of a set in the place of its name; optional ones too, if they were pulled.

    Raises InvalidRequestError for a set that there is not, and ModelFileError for one that is not here.
    """
    from . import model_sets

    result: list[str | os.PathLike[str]] = []
    for path in paths:
        path = _arguments.path(where, path)
        if not isinstance(path, str) or exists(path) or not model_sets.looks_like_a_set(path):
            result.append(path)
            continue
        wanted = model_sets.require_set(where, path)
        here = _local(wanted, Index())
        if here.missing:
            names = ", ".join(file.name for file in here.missing)
            gigabytes = sum(file.gigabytes for file in here.missing)
            raise ModelFileError(
                f"[{where}] of {wanted.name} these files are not here: {names}; sdltx-cli pull {wanted.name} "
                f"downloads them, about {gigabytes:.1f} GB"
            )
        result += [here.found[file] for file in wanted.needed]
        # A folder of nothing else: given by themselves, upscalers and LoRAs are no part of a model.
        extras = {path.parent for file, path in here.found.items() if file.option and path.parent.name == EXTRAS}
        result += sorted(extras)
    return result
