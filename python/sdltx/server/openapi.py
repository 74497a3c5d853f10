"""The document that tells programs of the addresses: options come from the table that all else comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sdltx

from ..options import ROWS, sentences
from .drafts import FORMATS, MATERIAL
from .settings import Limits

_FILE_TEXT = "a data: address (data:TYPE;base64,...), the name of a part of the form, or the id of a finished video"
_ID: dict[str, Any] = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "Of a video.",
    "schema": {"type": "string", "pattern": "^video_[0-9a-f]{32}$"},
}
_KINDS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "choice": {"type": "string"},
    "whole": {"type": "integer"},
    "real": {"type": "number"},
    "flag": {"type": "boolean"},
    "duration": {"type": ["string", "number"]},
    "wholes": {"type": "array", "items": {"type": "integer"}},
    "reals": {"type": "array", "items": {"type": "number"}},
    "file": {"type": "string"},
    "files": {"type": "array", "items": {"type": "string"}},
    "loras": {
        "type": "array",
        "items": {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "prefixItems": [{"type": "string"}, {"type": "number"}],
                    "minItems": 2,
                    "maxItems": 2,
                },
            ]
        },
    },
}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _option(row: Mapping[str, Any]) -> dict[str, Any]:
    schema = {**_KINDS[row["kind"]], "description": sentences(row)}
    if row["choices"]:
        schema["enum"] = list(row["choices"])
    if row["range"] and row["kind"] in ("whole", "real"):
        schema |= {"minimum": row["range"][0], "maximum": row["range"][1]}
    if row["kind"] in ("file", "files", "loras"):
        schema["description"] += " By the names of files of this server."
    return schema


def _file() -> dict[str, Any]:
    return {"type": "string", "description": f"A file: {_FILE_TEXT}."}


def _object(properties: Mapping[str, Any], required: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    told = {"type": "object", "properties": dict(properties), **more}
    return {**told, "required": list(required)} if required else told


def _entry(required: bool, **more: Any) -> dict[str, Any]:
    return _object({"file": _file(), **more}, ("file",) if required else (), additionalProperties=False)


def _request(limits: Limits) -> dict[str, Any]:
    options = {name: _option(row) for name, row in ROWS.items() if name != "enhanced_from"}
    options["prompt"] |= {"maxLength": sdltx._core.max_prompt_bytes}
    number = {"type": "number"}
    own: dict[str, Any] = {
        "model": {"type": "string", "description": "As /v1/models tells it; may be left out."},
        "size": {
            "type": "string",
            "pattern": "^[0-9]{1,5}x[0-9]{1,5}$",
            "description": "Such as 1280x720; what models cannot make becomes the nearest multiple of 64.",
        },
        "seconds": {
            "type": ["string", "number"],
            "description": f"Length, at most {limits.seconds:g} here; the clip has the number of frames nearest to it.",
        },
        "format": {"type": "string", "enum": list(FORMATS), "description": "Of the file (default: mp4)."},
        "input_reference": {
            "description": f"The picture that the clip begins with: {_FILE_TEXT}.",
            "anyOf": [
                {"type": "string"},
                _object({"image_url": {"type": "string"}}, ("image_url",), additionalProperties=False),
            ],
        },
        "last_image": {**_file(), "description": f"The picture that it ends with: {_FILE_TEXT}."},
        "images": {
            "type": "array",
            "description": "Pictures at any of its frames (negative: from the end).",
            "items": {
                "anyOf": [
                    {"type": "string"},
                    _entry(True, frame={"type": "integer"}, strength=number, crf={"type": "integer"}),
                ]
            },
        },
        "sound": {
            "description": "A sound that pictures are made for; start: where the clip begins in it, in seconds.",
            "anyOf": [{"type": "string"}, _entry(True, start=number)],
        },
        "film": {
            "description": "A film of which some stays and some is made anew; mask: where.",
            "anyOf": [{"type": "string"}, _entry(True, mask=_file())],
        },
        "mask": {**_file(), "description": f"The mask of the film: {_FILE_TEXT}."},
        "references": {
            "type": "array",
            "description": "Films or pictures that the clip follows, by an IC-LoRA.",
            "items": {"anyOf": [{"type": "string"}, _entry(True, strength=number, attention=_file())]},
        },
    }
    return _object({**options, **own}, ("prompt",), additionalProperties=False)


def _form(request: dict[str, Any]) -> dict[str, Any]:
    """The same as a form: files are parts, lists and objects JSON or fields with brackets."""
    properties = {
        name: {"type": "string", "format": "binary", "description": schema.get("description", "")}
        if name in MATERIAL
        else schema
        for name, schema in request["properties"].items()
    }
    return _object(properties, ("prompt",))


def _video() -> dict[str, Any]:
    text, whole, maybe = {"type": "string"}, {"type": "integer"}, {"type": ["integer", "null"]}
    error = _object({"code": text, "message": text}, ("code", "message"))
    number = {"type": ["number", "null"]}
    own = _object(
        {
            "request": {"type": "object", "description": "What it is made from, with all options that were given."},
            "seed": whole,
            "num_frames": whole,
            "frame_rate": {"type": "number"},
            "recipe": text,
            "num_inference_steps": whole,
            "task": text,
            "format": {"type": "string", "enum": list(FORMATS)},
            "doubts": {"type": "array", "items": text, "description": "What is probably not meant."},
            "memory": {**maybe, "description": "Bytes at most, as estimated."},
            "started_at": number,
            "queue_position": {**maybe, "description": "How many come before it."},
            "phase": {
                "type": ["string", "null"],
                "description": "load, encode, denoise, upscale, sound, decode or write.",
            },
            "phase_done": maybe,
            "phase_total": maybe,
            "seconds_left": {**number, "description": "Of one that waits: how long it will take once it is begun."},
            "preview": {**maybe, "description": "After how many steps /preview was made; null: there is none."},
        },
        ("seed", "num_frames", "frame_rate", "format"),
    )
    return _object(
        {
            "id": text,
            "object": {"const": "video"},
            "model": text,
            "status": {"type": "string", "enum": ["queued", "in_progress", "completed", "failed"]},
            "progress": {"type": "integer", "minimum": 0, "maximum": 100},
            "created_at": whole,
            "completed_at": maybe,
            "expires_at": maybe,
            "prompt": text,
            "size": text,
            "seconds": text,
            "remixed_from_video_id": {"type": ["string", "null"]},
            "error": {"anyOf": [error, {"type": "null"}]},
            "sdltx": own,
        },
        ("id", "object", "model", "status", "progress", "created_at", "size", "seconds", "error", "sdltx"),
    )


def _schemas(limits: Limits) -> dict[str, Any]:
    text, whole = {"type": "string"}, {"type": "integer"}
    request = _request(limits)
    model = _object(
        {"id": text, "object": {"const": "model"}, "created": whole, "owned_by": text, "sdltx": {"type": "object"}},
        ("id", "object", "created", "owned_by"),
    )
    changes = {**request, "required": []}
    details = {"message": text, "type": text, "param": {"type": ["string", "null"]}, "code": text}
    return {
        "VideoRequest": request,
        "VideoForm": _form(request),
        "RemixRequest": {name: value for name, value in changes.items() if value != []},
        "Video": _video(),
        "VideoList": _object(
            {
                "object": {"const": "list"},
                "data": {"type": "array", "items": _ref("Video")},
                "has_more": {"type": "boolean"},
                "first_id": {"type": ["string", "null"]},
                "last_id": {"type": ["string", "null"]},
            },
            ("object", "data", "has_more"),
        ),
        "DeletedVideo": _object(
            {"id": text, "object": {"const": "video.deleted"}, "deleted": {"type": "boolean"}},
            ("id", "object", "deleted"),
        ),
        "Plan": _object(
            {
                "object": {"const": "plan"},
                "size": text,
                "seconds": text,
                "memory": {**whole, "description": "Bytes at most."},
                "misfit": {"type": "string", "description": "Why it does not fit now, else empty."},
                "estimated_seconds": {"type": ["number", "null"], "description": "To make it, by what others took."},
                "doubts": {"type": "array", "items": text},
            },
            ("object", "size", "seconds", "memory", "misfit", "estimated_seconds", "doubts"),
        ),
        "Model": model,
        "ModelList": _object(
            {"object": {"const": "list"}, "data": {"type": "array", "items": _ref("Model")}}, ("object", "data")
        ),
        "Error": _object({"error": _object(details, ("message", "type", "code"))}, ("error",)),
    }


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": dict(schema)}}


_EXAMPLE = {"prompt": "a red circle moves left", "size": "64x64", "num_frames": 9, "num_inference_steps": 1, "seed": 1}
_PROBLEMS = {
    400: "The body is broken.",
    401: "The token is not shown.",
    403: "The server is not called so, or a page of another one asks.",
    404: "It is not there.",
    409: "It is not there yet.",
    413: "The body is too long.",
    415: "The body is neither JSON nor a form.",
    416: "The range is none of the file.",
    422: "A value is outside its range, does not fit, or is more than this server makes.",
    429: "Too many wait; Retry-After says when to come again.",
    503: "The engine is being started.",
    507: "The disk is full.",
}


def _operation(
    name: str, text: str, answers: Mapping[str, Any], problems: tuple[int, ...] = (), **more: Any
) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": dict(answers)}}
    for status in (401, 403, *problems):
        responses[str(status)] = {"description": _PROBLEMS[status], "content": _json(_ref("Error"))}
    return {"operationId": name, "summary": text, "responses": responses, **more}


def _then() -> dict[str, Any]:
    """What can be asked of the video that was answered."""
    names = ("getVideo", "cancelVideo", "remixVideo", "getContent", "getPreview", "deleteVideo")
    return {name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in names}


def _body(name: str) -> dict[str, Any]:
    content = _json(_ref(name))
    content["application/json"]["example"] = _EXAMPLE
    if name == "VideoRequest":
        content["multipart/form-data"] = {"schema": _ref("VideoForm")}
    return {"required": name != "RemixRequest", "content": content}


def _query(name: str, schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": text, "schema": dict(schema)}


def _paths() -> dict[str, Any]:
    video, binary = _json(_ref("Video")), {"schema": {"type": "string", "format": "binary"}}
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": _ref("Video")}
    kinds = {"type": "string", "enum": ["ready", "video", "deleted"]}
    events = {"text/event-stream": {"schema": _object({"event": kinds, "data": data}, ("event", "data"))}}
    taken = (400, 404, 413, 415, 422, 429, 503, 507)
    anything = _json({"type": "object"})
    listed = [
        _query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "How many at most."),
        _query("order", {"type": "string", "enum": ["asc", "desc"], "default": "desc"}, "By their time."),
        _query("after", _ID["schema"], "The last one that is known."),
        _query("waiting", {"type": "boolean", "default": False}, "Only those that wait or are made."),
    ]
    variants = [
        _query(
            "variant", {"type": "string", "enum": ["video", "thumbnail", "spritesheet"]}, "What of it (default: video)."
        ),
        _query("download", {"type": "string"}, "Whether browsers save it."),
    ]
    content = dict.fromkeys((*FORMATS.values(), "image/jpeg"), binary)
    return {
        "/v1/videos": {
            "post": _operation("createVideo", "Make a video", video, taken, requestBody=_body("VideoRequest")),
            "get": _operation("listVideos", "List videos", _json(_ref("VideoList")), (404, 422), parameters=listed),
        },
        "/v1/videos/{id}": {
            "parameters": [_ID],
            "get": _operation("getVideo", "Tell of a video", video, (404,)),
            "delete": _operation(
                "deleteVideo", "Remove a video, also one that is made", _json(_ref("DeletedVideo")), (404,)
            ),
        },
        "/v1/videos/{id}/cancel": {
            "parameters": [_ID],
            "post": _operation("cancelVideo", "Stop a video", video, (404,)),
        },
        "/v1/videos/{id}/remix": {
            "parameters": [_ID],
            "post": _operation(
                "remixVideo",
                "Make a video like this one, with some options changed",
                video,
                taken,
                requestBody=_body("RemixRequest"),
            ),
        },
        "/v1/videos/{id}/content": {
            "parameters": [_ID],
            "get": _operation(
                "getContent", "Get the file, also a range of it", content, (404, 409, 416, 422), parameters=variants
            ),
        },
        "/v1/videos/{id}/preview": {
            "parameters": [_ID],
            "get": _operation("getPreview", "Get a picture of how it looks so far", {"image/webp": binary}, (404, 409)),
        },
        "/v1/videos/{id}/events": {
            "parameters": [_ID],
            "get": _operation("getEvents", "Hear how it goes on, until it is over", events, (404, 429)),
        },
        "/v1/events": {"get": _operation("getAllEvents", "Hear of all videos", events, (429,))},
        "/v1/plans": {
            "post": _operation(
                "planVideo",
                "Tell what a video would come to",
                _json(_ref("Plan")),
                taken,
                requestBody=_body("VideoRequest"),
            ),
        },
        "/v1/models": {"get": _operation("listModels", "Tell which model is served", _json(_ref("ModelList")))},
        "/v1/models/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": _operation("getModel", "Tell of a model", _json(_ref("Model")), (404,)),
        },
        "/v1/options": {
            "get": _operation("listOptions", "Tell all options of a video, and files they may name", anything)
        },
        "/health": {"get": _operation("getHealth", "Tell whether videos are made", anything, (503,))},
        "/metrics": {
            "get": _operation(
                "getMetrics", "Tell numbers to Prometheus", {"text/plain": {"schema": {"type": "string"}}}
            )
        },
    }


def document(limits: Limits) -> dict[str, Any]:
    """Returns the document."""
    paths = _paths()
    paths["/health"]["get"]["responses"]["503"]["content"] = _json({"type": "object"})
    paths["/v1/videos"]["post"]["responses"]["200"]["links"] = _then()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sdltx",
            "version": sdltx.__version__,
            "description": "Videos with sound from a prompt; OpenAI's video interface, with all options of sdltx.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(limits),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }
