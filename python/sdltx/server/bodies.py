"""Bodies of requests, JSON or a form, as fields and files."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ..options import ROWS
from .problems import Problem

MOST_FILES = 32
"""Parts of a form that are files."""
_MOST_FIELDS, _LONGEST_FIELD, _DEEPEST = 500, 1 << 20, 3
_NUMBERS = {"whole": int, "real": float, "wholes": int, "reals": float}


@dataclass(frozen=True)
class Upload:
    """A file of a form."""

    file: BinaryIO
    name: str
    type: str


@dataclass(frozen=True)
class Body:
    """What was sent."""

    fields: dict[str, Any]
    uploads: dict[str, list[Upload]]
    form: FormData | None = None

    async def close(self) -> None:
        """Gives the files back."""
        if self.form is not None:
            await self.form.close()


async def read(request: Request, *, required: bool = True) -> Body:
    """Returns what was sent; it is to be closed. Raises Problem for what is neither JSON nor a form."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if (
        not required
        and request.headers.get("content-length", "0") == "0"
        and "transfer-encoding" not in request.headers
    ):
        return Body({}, {})
    if kind == "application/json":
        try:
            told = json.loads(await request.body(), parse_constant=_refuse_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise Problem(400, f"the body is no JSON: {' '.join(str(error).split())[:200]}") from None
        if not isinstance(told, dict):
            raise Problem(400, "the body is no object; give options by their names")
        return Body(told, {})
    if kind != "multipart/form-data":
        raise Problem(415, "send JSON (application/json) or a form (multipart/form-data)")
    form = await _form(request)
    try:
        return _body_of(form)
    except BaseException:
        await form.close()
        raise


class _Parser(MultiPartParser):
    """Knows whether the form came to its end: one that is cut off within a part is whole to the library."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def _form(request: Request) -> FormData:
    parser = _Parser(
        request.headers,
        request.stream(),
        max_files=MOST_FILES,
        max_fields=_MOST_FIELDS,
        max_part_size=_LONGEST_FIELD,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem(400, f"the form is broken: {error.message}") from None
    except (FormParserError, UnicodeError, LookupError):  # or its charset is none
        raise Problem(400, "the form is broken") from None
    except OSError as error:
        raise Problem(507, f"the server cannot keep the files: {error.strerror or error}") from None
    if not parser.ended:
        await form.close()
        raise Problem(400, "the form is broken: it ends before its last boundary")
    return form


def _body_of(form: FormData) -> Body:
    texts: list[tuple[str, str]] = []
    uploads: dict[str, list[Upload]] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            found = Upload(value.file, value.filename or "", value.content_type or "")
            uploads.setdefault(name.removesuffix("[]"), []).append(found)
        else:
            texts.append((name, value))
    return Body(_fields_of(texts), uploads, form)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text[:60]} is too large a number")
    return value


def _fields_of(texts: list[tuple[str, str]]) -> dict[str, Any]:
    """Fields of a form: ``a``, ``a[]`` or several ``a`` of lists, ``a[b]`` of objects, ``a[][b]`` of lists of those."""
    found: dict[str, Any] = {}
    count = Counter(name for name, _ in texts)
    for name, text in ((f"{name}[]" if count[name] > 1 and "[" not in name else name, text) for name, text in texts):
        match = re.fullmatch(r"([^\[\]]+)((?:\[[^\[\]]*\])*)", name)
        if match is None:
            raise Problem(422, f"the form has a field {name[:60]!r}, which is no name")
        keys = re.findall(r"\[([^\[\]]*)\]", match[2])
        try:
            if len(keys) > _DEEPEST:
                raise TypeError
            _put(found, match[1], keys, _value_of(match[1], text, bool(keys)))
        except (TypeError, AttributeError, LookupError):
            raise Problem(422, f"the form has {match[1][:60]!r} in several ways") from None
    return found


def _put(to: Any, key: str, keys: list[str], value: Any) -> None:
    if not keys:
        if key in to:
            raise TypeError
        to[key] = value
        return
    if keys[0] and not keys[0].isdigit():
        _put(to.setdefault(key, {}), keys[0], keys[1:], value)
        return
    entries = to.setdefault(key, [])
    if len(keys) == 1:
        entries.append(value)
    elif keys[1] and not keys[1].isdigit():
        # A name that is there already begins the next object.
        if not entries or keys[1] in entries[-1]:
            entries.append({})
        _put(entries[-1], keys[1], keys[2:], value)
    else:
        raise TypeError


def _value_of(field: str, text: str, inside: bool) -> Any:
    """Text of a form as what its option is; what cannot be stays a text, which is refused later with its name."""
    kind = ROWS[field]["kind"] if field in ROWS else ""
    if field in ("seconds", "prompt", "negative_prompt") or (kind in ("text", "choice") and not inside):
        return text
    if kind == "flag":
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if kind in _NUMBERS and (inside or kind in ("whole", "real")):
        try:
            return _NUMBERS[kind](text)
        except ValueError:
            return text
    if inside:
        try:
            return json.loads(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else text
        except ValueError:
            return text
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text
