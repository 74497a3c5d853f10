"""The ABI of libsdltx.so is what csrc/sdltx.abi lists, and another one has another number."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import capi
import pytest
from abi import LISTING, layout, listing
from capi import LIBRARY

ROOT = Path(__file__).parent.parent


def needed(tool):
    found = shutil.which(tool)
    assert found, f"{tool} comes with the compiler that has built the package"
    return found


def compile_and(run, source, tmp_path, suffix, *flags):
    file = tmp_path / f"x.{suffix}"
    file.write_text(source)
    command = [needed("c++" if suffix == "cpp" else "cc"), "-Wall", "-Wextra", "-Werror", "-pedantic", *flags]
    command += [f"-I{capi.HEADER.parent}", str(file), "-o", str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return subprocess.run([str(tmp_path / "x")], capture_output=True, text=True, check=True).stdout if run else ""


@pytest.mark.parametrize(("suffix", "standard"), [("c", "c99"), ("cpp", "c++17")])
def test_header_alone(tmp_path, suffix, standard):
    compile_and(False, '#include "sdltx.h"\n', tmp_path, suffix, "-c", f"-std={standard}")


def test_layout_is_that_of_the_compiler(tmp_path):
    lines = []
    for name, fields in capi.structs().items():
        lines.append(f'printf("{name} %d\\n", (int)sizeof({name}));')
        lines += [f'printf("{name}.{f} %d\\n", (int)offsetof({name}, {f}));' for _, f, _ in fields]
    source = '#include <stdio.h>\n#include "sdltx.h"\nint main(void) {\n' + "\n".join(lines) + "\nreturn 0;\n}\n"
    told = compile_and(True, source, tmp_path, "c", "-std=c99")
    assert layout() == {name: int(value) for name, value in (line.split() for line in told.splitlines())}


def test_every_function_is_exported_and_nothing_else():
    """The C++ that only the Python extension uses has a version of its own, as glibc's private symbols have."""
    command = [needed("nm"), "-D", "--defined-only", LIBRARY._name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    exported: dict[str, set[str]] = {"SDLTX_1": set(), "SDLTX_PRIVATE": set()}
    for line in done.stdout.splitlines():
        name, _, version = line.split()[-1].partition("@@")
        if name not in exported:
            exported[version].add(name)
    assert exported["SDLTX_1"] == set(capi.functions())
    for name in exported["SDLTX_PRIVATE"]:  # no ggml, no sentencepiece, no instance of a foreign template
        assert re.match(r"_ZN?K?5sdltx|_ZNK?5sdltx|_ZT[ISV]N5sdltx", name), name


def test_the_listing_is_up_to_date():
    assert LISTING.read_text() == listing(), (
        "the ABI has changed: raise SDLTX_ABI_VERSION in csrc/sdltx.h and the version of every struct that has got "
        "fields, then run: python tests/abi.py"
    )
    assert LIBRARY.sdltx_abi_version() == int(listing().split()[1])


def git(*arguments):
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def by_number(listings):
    """The different listings that each number has had."""
    found: dict[str, set[str]] = {}
    for text in listings:
        found.setdefault(text.split("\n", 1)[0], set()).add(text)
    return found


def test_another_abi_has_another_number():
    """As far as the history tells that is here."""
    name = str(LISTING.relative_to(ROOT))
    past = [git("show", f"{commit}:{name}") for commit in git("log", "--format=%H", "--", name).split()]
    for number, texts in by_number([*filter(None, past), LISTING.read_text()]).items():
        assert len(texts) == 1, f"the ABI has changed and is still '{number}'; raise SDLTX_ABI_VERSION"


@pytest.mark.parametrize(
    ("before", "after"),
    [("  0 uint32_t version", "  0 uint64_t version"), ("_OK 0", "_OK 1"), ("size_t num_paths", "int num_paths")],
)
def test_a_change_without_another_number_is_found(before, after):
    changed = listing().replace(before, after)
    assert changed != listing()
    assert [len(texts) for texts in by_number([listing(), changed]).values()] == [2]
