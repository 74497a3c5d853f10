"""``sdltx-cli models``: what model files are here, what they are, and what they lack."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sdltx

from .. import library, model_sets
from ..inspection import ModelReport, inspect, size_text
from .job import Job
from .options import add_command, message_options


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "models",
        _models,
        "list the model files that are here, what each is and what it lacks; or the sets that pull knows",
        "sdltx-cli models",
    )
    command.add_argument("--known", action="store_true", help="list the sets that can be pulled, and their sizes")
    command.add_argument("--json", action="store_true", help="print everything as one JSON object")
    message_options(command)


def _models(job: Job) -> None:
    index = library.Index()
    sets = library.local_sets(index)
    if job.args.known:
        _print_known(sets, job.args.json, job.args.verbose > 0)
        return
    reports = {path: inspect(path) for paths in index.files.values() for path in paths}
    if job.args.json:
        print(json.dumps(_as_json(index, sets, reports), indent=1))
        return
    print("looked in (SDLTX_MODELS, COMFYUI_PATH and HF_HOME name others):")
    for place in index.places:
        print(f"  {place.folder}  ({place.what})")
    if not index.places:
        print("  nothing of these is there")
    here = [one for one in sets if _is_begun(one)]
    print("sets:" if here else "no set of files is here; sdltx-cli models --known lists those that pull downloads")
    for one in here:
        lacks = ", ".join(file.part for file in one.missing)
        state = f"lacks {lacks}; sdltx-cli pull {one.wanted.name}" if lacks else f"ready: -m {one.wanted.name}"
        print(f"  {one.wanted.name}: {state}")
    in_sets = {path for one in sets for path in one.found.values()}
    others = {path: report for path, report in reports.items() if path not in in_sets}
    for line in _lines_of(others, reports):
        print(line)


def _is_begun(one: library.LocalSet) -> bool:
    """Whether there is more of a set here than what it shares with others."""
    return any(file.has_transformer for file in one.found)


def _print_known(sets: Iterable[library.LocalSet], as_json: bool, with_files: bool) -> None:
    if as_json:
        print(json.dumps([_set_as_json(one) for one in sets], indent=1))
        return
    for one in sets:
        wanted = one.wanted
        usual = model_sets.USUAL[wanted.family] == wanted.variant
        gated = " (accept its licence first)" if any(file.gated for file in wanted.needed) else ""
        state = "" if one.missing else "  [here]"
        print(f"{wanted.name}{' *' * usual}: about {wanted.gigabytes:.1f} GB, {wanted.purpose}{gated}{state}")
        for file in wanted.files if with_files else ():
            optional = f"  --with {file.option}" * bool(file.option)
            print(f"    {file.part}: {file.repository} {file.path}  {file.gigabytes:.2f} GB, {file.licence}{optional}")
    print("* is meant by its family's name alone" + ("" if with_files else "; -v lists their files"))


def _lines_of(others: dict[Path, ModelReport], everything: dict[Path, ModelReport]) -> Iterable[str]:
    """Files that belong to no set: what they are, and which others here fill what they lack."""
    models = {path: report for path, report in others.items() if _purpose(report)}
    if models:
        yield "other files:"
    for path, report in sorted(models.items()):
        size = size_text(sum(file.bytes for file in report.files))
        yield f"  {path}: {_purpose(report)}, {size}"
        for problem in report.problems:
            if problem.startswith(f"[{path}]"):  # of the file itself, not that it is no whole model
                yield f"    {problem.removeprefix(f'[{path}] ')}"
        if report.model and report.missing:
            yield f"    lacks {', '.join(report.missing)}"
            for part in report.missing:
                fits = [str(other) for other, found in everything.items() if part in _parts(found) and other != path]
                if fits:
                    yield f"      {part} is in {' or '.join(fits[:3])}"
    if rest := len(others) - len(models):
        yield f"{rest} file{'s' * (rest > 1)} of other models"


def _parts(report: ModelReport) -> list[str]:
    return [part.part for part in report.parts if part.part != "other"]


def _purpose(report: ModelReport) -> str:
    """What a file is, empty for what sdltx has no use for."""
    if not report.files:
        return "cannot be read"
    kinds = [file.kind for file in report.files if file.kind != "model"]
    if kinds:
        return kinds[0]
    name = f"{report.model} {'distilled' if report.distilled else 'not distilled'}, " if report.model else ""
    return f"{name}{', '.join(_parts(report))}" if _parts(report) else ""


def _as_json(
    index: library.Index, sets: Iterable[library.LocalSet], reports: dict[Path, ModelReport]
) -> dict[str, Any]:
    return {
        "version": sdltx.__version__,
        "places": [{"folder": str(place.folder), "what": place.what} for place in index.places],
        "sets": [_set_as_json(one) for one in sets],
        "files": [
            {
                "path": str(path),
                "what": _purpose(report),
                "parts": _parts(report),
                "missing": list(report.missing),
                "problems": list(report.problems),
            }
            for path, report in reports.items()
        ],
    }


def _set_as_json(one: library.LocalSet) -> dict[str, Any]:
    return {
        "name": one.wanted.name,
        "purpose": one.wanted.purpose,
        "gigabytes": round(one.wanted.gigabytes, 2),
        "ready": not one.missing,
        "files": [
            {
                "repository": file.repository,
                "path": file.path,
                "part": file.part,
                "gigabytes": file.gigabytes,
                "licence": file.licence,
                "gated": file.gated,
                "option": file.option,
                "here": str(one.found[file]) if file in one.found else None,
            }
            for file in one.wanted.files
        ],
    }
