"""What terminals, shells and locales have or lack."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from commands import TINY_CLIP, errors, run

import sdltx


@pytest.mark.by_day(3)
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["recipes"], ["devices"], ["generate", "-p", "x", "--dry-run"], ["embed"]])
def test_a_reader_that_has_seen_enough(command, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    process = subprocess.Popen(
        [sys.executable, "-m", "sdltx", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 141)
    assert b"Pipe" not in said and b"Traceback" not in said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")  # noqa: PTH110
def test_a_full_standard_output():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "sdltx", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 6
    assert "cannot write: No space left" in done.stderr


@pytest.mark.parametrize("coding", ["ascii", "latin-1", "cp1252"])
def test_what_a_terminal_cannot_spell(coding):
    done = run(
        "generate",
        "-p",
        "ein rötes 日本 😀",
        "--dry-run",
        env={**os.environ, "PYTHONIOENCODING": coding},
        encoding="latin-1",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("locale", ["C", "de_DE.ISO-8859-1"])
def test_prompts_where_the_locale_is_not_utf8(tmp_path, locale):
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    path = tmp_path / "x.safetensors"
    words = ["-p", "ein rötes 日本", "-n", "schön", "--guidance-scale", "2", "--save-latents", path]
    done = run("generate", *words, *TINY_CLIP, env=environment)
    assert done.returncode == 0, done.stderr
    settings = sdltx.Latents.load(path).settings
    assert (settings["prompt"], settings["negative_prompt"]) == ("ein rötes 日本", "schön")


def test_a_negative_prompt_that_is_no_text():
    done = run("generate", "-p", "x", "-n", b"\xff".decode(errors="surrogateescape"), "--dry-run")
    assert done.returncode == 2
    assert "the negative prompt is not valid Unicode" in errors(done)[0]


def test_lines_of_windows(tmp_path):
    for name, text in (("lf", b"a red square\nmoves left\n"), ("crlf", b"\xef\xbb\xbfa red square\r\nmoves left\r\n")):
        (tmp_path / name).write_bytes(text)
    told = [run("generate", "--prompt-file", tmp_path / name, "--dry-run").stdout for name in ("lf", "crlf")]
    prompts = [next(line for line in text.splitlines() if line.startswith("prompt")) for text in told]
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize("number", ["0", "-1", "1000", "2147483648", "9" * 40, "x"])
def test_threads_that_there_cannot_be(number):
    done = run("generate", "-p", "x", "-t", number, "--dry-run")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) <= 2
    if number.lstrip("-").isdigit():
        with pytest.raises(sdltx.InvalidRequestError, match="threads"):
            sdltx.load(threads=int(number))


def test_the_command_inside_of_a_program():
    """It leaves the signals as they were, and runs in threads too."""
    code = f"""
import signal, threading
from sdltx import cli
before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
words = ["generate", "-p", "x", *{TINY_CLIP!r}, "--dry-run", "-q"]
assert cli.main(words) == cli.main(words) == 0
assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
codes = []
thread = threading.Thread(target=lambda: codes.append(cli.main(words)))
thread.start()
thread.join()
assert codes == [0]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
