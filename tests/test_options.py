"""The one table of options, and what is made of it."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run

import sdltx
from sdltx import _core, options
from sdltx.pipeline import check

ROOT = Path(__file__).parent.parent
ROWS = _core.option_table()


def written():
    spec = importlib.util.spec_from_file_location("write_options", ROOT / "tools" / "write_options.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.files()


@pytest.mark.parametrize("path", ["python/sdltx/_options.py", "docs/options.md"])
def test_what_is_generated_is_fresh(path):
    assert (ROOT / path).read_text() == written()[ROOT / path], "run tools/write_options.py"


def test_rows_are_complete():
    names = [row["name"] for row in ROWS]
    assert len(names) == len(set(names)) > 30
    flags = [flag for row in ROWS for flag in row["flags"].split()]
    assert len(flags) == len(set(flags))
    for row in ROWS:
        assert row["help"] and not row["help"].endswith("."), row["name"]
        assert row["docs"] == "" or row["docs"].endswith("."), row["name"]
        assert bool(row["choices"]) == (row["kind"] == "choice"), row["name"]
        assert row["range"] is None or row["range"][0] < row["range"][1], row["name"]
        assert re.fullmatch(r"\d+\.\d+", row["since"])


@pytest.mark.parametrize("name", ["generate", "sample", "resolve", "check", "estimate", "doubts"])
def test_methods_spell_options(name, tiny):
    method = getattr(tiny, name)
    found = inspect.signature(method).parameters
    assert "options" not in found
    for option in options.NAMES:
        assert found[option].kind is inspect.Parameter.KEYWORD_ONLY
        assert found[option].default is None
        assert f"\n{option}: " in inspect.getdoc(method)


def test_type_checkers_see_the_same():
    assert list(options.Options.__annotations__) == list(options.NAMES)


def test_numbers_have_their_range():
    """Both ends of the range of every number are taken, what lies beyond is refused by name."""
    count = 0
    for row in ROWS:
        if row["range"] is None or row["kind"] not in ("whole", "real") or row["name"] == "num_inference_steps":
            continue
        least, most = row["range"]
        kind = int if row["kind"] == "whole" else float
        for value in (least, min(most, 2**53)):
            check(**{row["name"]: kind(value)})
        for value in (least - 1, most + 1):
            if value < 2**62:
                with pytest.raises(sdltx.InvalidRequestError, match=rf"\] {row['name']} .* is out of range; use"):
                    check(**{row["name"]: kind(value)})
        count += 1
    assert count > 10


def test_help_of_python_shows_options():
    shown = subprocess.run(
        [sys.executable, "-c", "import sdltx; help(sdltx.Pipeline.generate)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "guidance_scale: 'float | Fraction | None' = None" in shown
    assert "classifier-free guidance" in shown.lower()


def test_command_line_has_all_flags():
    shown = run("generate", "--help", check=True).stdout
    for row in ROWS:
        for flag in row["flags"].split():
            assert f"{flag} " in shown or f"{flag}," in shown, flag


@pytest.mark.parametrize("seed", [-1, None])
def test_a_seed_that_is_drawn(tiny, seed):
    seeds = {tiny.resolve(seed=seed)["seed"] for _ in range(3)}
    assert len(seeds) > 1
    assert all(seed >= 0 for seed in seeds)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell, tmp_path):
    shown = run("completion", shell, check=True).stdout
    assert "guided-two-stage" in shown  # what a choice offers
    assert "audio-guidance-scale" in shown
    if shell == "bash":
        (tmp_path / "complete").write_text(shown)
        subprocess.run(["bash", "-n", str(tmp_path / "complete")], check=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-i", "a.png", "0", "1.0"], "-i PATH:0:1.0"),
        (["-m", "a", "b"], "-m takes one file"),
        (["--nothing"], "unrecognized arguments: --nothing"),
    ],
)
def test_what_other_programs_take(arguments, said):
    done = run("generate", "-p", "x", "-o", "x.mp4", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_names_of_other_programs(tmp_path):
    done = run("generate", "-p", "x", "--output-path", tmp_path / "x.mp4", "--diffusion-model", "no-such-file")
    assert "[no-such-file] cannot open the file" in done.stderr
