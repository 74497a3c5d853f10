"""Reading pictures as people have them: photos of phones and cameras, with profiles, previews, turned, very large."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _arguments
from ._files import exists, is_file, is_folder
from .errors import InvalidRequestError

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_PIXELS = 1 << 28
_EXIF_HEADER = b"Exif\0\0"
_ORIENTATION, _SHORT = 0x0112, 3  # a tag, and the type of its value
# Those that people have pictures in; some others run programs, such as PostScript.
_FORMATS = (
    *("PNG", "JPEG", "MPO", "JPEG2000", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "TGA", "ICO", "AVIF", "HEIF"),
    *("QOI", "DDS", "SGI"),
)
_HEIF = (".heic", ".heif", ".hif")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_LONGEST_PROFILE = 1 << 20


def read(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Returns the picture of a file, (H, W, 3) uint8, as :func:`of_pillow` makes it.

    Raises InvalidRequestError for what is missing, broken, no picture or an animation.
    """
    name = _arguments.path("image", path)
    if exists(name) and not is_file(name):
        what = "is a directory" if is_folder(name) else "is no regular file"
        raise InvalidRequestError(f"[image] {name} {what}")
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    _use_heif(name)
    try:
        # Pillow warns of large photos, and of tags that nobody needs.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _opened(name) as image:
                return of_pillow(image, name)
    except (InvalidRequestError, MemoryError):
        raise
    except FileNotFoundError:
        raise InvalidRequestError(f"[image] there is no file {name}") from None
    except Pillow.DecompressionBombError:
        raise InvalidRequestError(f"[image] {name} has too many pixels; scale it down") from None
    except UnidentifiedImageError:
        hint = "; install pillow-heif to read it" if name.lower().endswith(_HEIF) else ""
        what = f"it is none that Pillow reads{hint}"
        raise InvalidRequestError(f"[image] cannot read {name} as a picture: {what}") from None
    except OSError as error:
        reason = error.strerror or "it is broken"
        raise InvalidRequestError(f"[image] cannot read {name} as a picture: {reason}") from None
    except Exception as error:  # what a broken file makes one of many formats raise
        raise InvalidRequestError(f"[image] cannot read {name} as a picture: it is broken ({error})") from None


def of_pillow(image: Image, name: str) -> NDArray[np.uint8]:
    """Returns a picture of Pillow as (H, W, 3) uint8.

    It is turned as its EXIF says, and its colours are those of its profile in sRGB, where it has one (the reference
    takes all for sRGB). Of more than 8 bits the upper ones stay; what transparent places hide is shown. Of a photo with
    previews or depth beside it (MPO) the photo itself counts.

    Raises InvalidRequestError for animations, for too many pixels, and for what is broken.
    """
    try:
        # An animation has several pictures that are one; a photo with a preview, a TIFF with pages, is its first.
        if image.format in ("MPO", "TIFF"):
            image.seek(0)
        elif (pictures := getattr(image, "n_frames", 1)) > 1:
            raise InvalidRequestError(f"[image] {name} is an animation of {pictures} pictures; give one of them")
        if image.width * image.height > _MOST_PIXELS:
            raise InvalidRequestError(f"[image] {name} has too many pixels; scale it down")
        return np.ascontiguousarray(_turned(_rgb(image, name), image))
    except (InvalidRequestError, MemoryError):
        raise
    except Exception as error:  # what a broken file makes one of many formats raise
        raise InvalidRequestError(f"[image] {name} is broken: {error}") from None


def _opened(name: str) -> Image:
    """Opens PNG files without texts that Pillow finds too long, and all others as they are."""
    from PIL import Image as Pillow

    image = None
    Pillow.init()
    formats = [format for format in _FORMATS if format in Pillow.OPEN]
    try:
        image = Pillow.open(name, formats=formats)
        if image.format == "PNG":
            image.load()  # texts may follow the pixels
        return image
    except (ValueError, SyntaxError, OSError):
        if image is not None:
            image.close()
        with Path(name).open("rb") as file:
            if file.read(len(_PNG_SIGNATURE)) != _PNG_SIGNATURE:
                raise
            data = _without_texts(file.read())
    try:
        return Pillow.open(io.BytesIO(data), formats=["PNG"])
    except (ValueError, SyntaxError) as error:
        raise OSError(None, f"it is broken ({error})") from None


def _without_texts(chunks: bytes) -> bytes:
    """A PNG file of these chunks, without those of text and without profiles that are longer than any."""
    out = [_PNG_SIGNATURE]
    at = 0
    while at + 12 <= len(chunks):
        length = int.from_bytes(chunks[at : at + 4], "big")
        kind, chunk = chunks[at + 4 : at + 8], chunks[at : at + 12 + length]
        at += 12 + length
        if kind in _PNG_TEXTS or (kind == b"iCCP" and _is_too_long(chunk[8:-4])):
            continue
        out.append(chunk)
    return b"".join(out)


def _is_too_long(profile: bytes) -> bool:
    _name, _, rest = profile.partition(b"\0")
    with suppress(zlib.error):
        return len(zlib.decompressobj().decompress(rest[1:], _LONGEST_PROFILE + 1)) > _LONGEST_PROFILE
    return True


def _use_heif(name: str) -> None:
    """Teaches Pillow the format of phones, where pillow-heif is installed."""
    if name.lower().endswith(_HEIF):
        with suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()


def _rgb(image: Image, name: str) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise InvalidRequestError(f"[image] {name} holds floating-point values; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        # Files of 16 bits, of which Pillow would keep the lower ones; an array of whole numbers may have 8.
        eight = image.mode == "I" and image.format is None and values.max(initial=0) <= 255
        gray = np.clip(values if eight else values >> 8, 0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    return np.asarray(_in_srgb(image))


def _in_srgb(image: Image) -> Image:
    """The picture in RGB, its colours converted if it has another profile; one that cannot be used is none."""
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGBA", "RGBX", "P", "PA"):
        image = image.convert("RGB")
    elif profile and image.mode == "LA":
        image = image.convert("L")
    if not profile or image.mode not in ("RGB", "L", "CMYK"):
        return image.convert("RGB")
    try:
        theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in (theirs.profile.profile_description or "").lower():
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(image, theirs, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        converted = None
    return converted or image.convert("RGB")


def _orientation(exif: bytes) -> int | None:
    """The one tag of EXIF that counts, in the first directory: what stands beside it may be wrong in any way."""
    data = exif.removeprefix(_EXIF_HEADER).removeprefix(_EXIF_HEADER)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    with suppress(struct.error, TypeError):
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", data, at)
            if tag == _ORIENTATION and kind == _SHORT:
                return int(value)
    return None


def _turned(array: NDArray[np.uint8], image: Image) -> NDArray[np.uint8]:
    exif = image.info.get("exif")
    orientation = _orientation(exif) if isinstance(exif, bytes) else None
    if orientation is None:
        with suppress(Exception):  # where other formats keep it
            orientation = image.getexif().get(_ORIENTATION)
    turns: dict[Any, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a[::-1].swapaxes(0, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a[:, ::-1].swapaxes(0, 1),
    }
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    return array if turn is None else turn(array)
