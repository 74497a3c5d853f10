"""Builds and runs the targets, and tells how much was run and what of the readers was reached. See README.md."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import seeds

ROOT = Path(__file__).parents[2]
# The sources that read what comes from outside.
READERS = (
    *("base/json.cpp", "ggml/safetensors.cpp", "ggml/gguf.cpp", "ggml/encodings.cpp", "ggml/values.cpp"),
    *("gemma/tokenizer.cpp", "gemma/tokenizer_json.cpp", "gemma/tokenizer_json.h", "gemma/utf8.h", "gemma/config.cpp"),
    *("gemma3/sentencepiece_model.cpp", "gemma3/tokenizer.cpp", "gemma4/bpe.cpp", "gemma4/config.cpp"),
    *("gemma4/tokenizer.cpp", "ltxv/config.cpp", "ltxv/config_from_shapes.cpp", "ltxv/lora_file.cpp"),
    *("model/convert/imatrix.cpp", "model/names.cpp", "model/inspect.cpp", "model/info.cpp", "clip/request.cpp"),
    *("clip/options.cpp", "api/capi_request.cpp", "api/capi_values.h"),
)
READERS_IN_PYTHON = (
    *("request.py", "settings.py", "values.py", "_arguments.py", "images.py", "_pictures.py", "_readers.py"),
    *("material.py", "cli/batch_lines.py", "cli/batch_state.py", "cli/config.py", "cli/repeat.py"),
)
PYTHON_READERS = Path(__file__).parent / "python_readers.py"
LIMITS = ["-timeout=10", "-rss_limit_mb=3000", "-malloc_limit_mb=1000"]


class Ran(NamedTuple):
    """What came of a target."""

    executions: int
    features: int
    inputs: int
    finds: list[Path]


def tool(name: str) -> str:
    """The path of one of clang's tools, which distributions call by their version."""
    for candidate in (name, *(f"{name}-{version}" for version in range(22, 13, -1))):
        if path := shutil.which(candidate):
            return path
    sys.exit(f"there is no {name}; install clang and llvm")


def build(folder: Path) -> None:
    """Compiles the targets with sources of dependencies that an earlier build has unpacked, or its own."""
    flags = "-O1 -g1"
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=None"]
    configure += [
        f"-DCMAKE_C_FLAGS={flags}",
        f"-DCMAKE_CXX_FLAGS={flags}",
        "-DSDLTX_SANITIZE=fuzz",
        "-DSDLTX_PYTHON=OFF",
    ]
    configure += [f"-DPython_EXECUTABLE={sys.executable}"]
    for name, pattern in (("GGML", "libggml-python-*/ggml"), ("SENTENCEPIECE", "sentencepiece-*/sentencepiece")):
        if found := sorted(ROOT.glob(f"build/cp*/_deps/{pattern}")):
            configure.append(f"-DSDLTX_{name}_SOURCE_DIR={found[0]}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"CC": tool("clang"), "CXX": tool("clang++"), "PATH": path}
    for command in (configure, ["cmake", "--build", str(folder), "--target", "sdltx-fuzz"]):
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(done.stdout[-8000:])


def is_python(target: str) -> bool:
    """Whether it is one of what Python reads."""
    return target.startswith("py_")


def program_of(target: str, folder: Path) -> list[str]:
    """What runs a target."""
    if is_python(target):
        return [sys.executable, str(PYTHON_READERS), target]
    return [str(folder / "tools" / "fuzz" / target)]


def run(target: str, folder: Path, seconds: int, seed: int) -> Ran:
    """Runs one target for a time, from what is in its corpus, to which it adds what reaches something new."""
    corpus, finds = folder / "corpus", folder / "finds"
    finds.mkdir(parents=True, exist_ok=True)
    before = set(finds.glob(f"{target}-*"))
    words = corpus / f"{target}.dict"
    command = [
        *program_of(target, folder),
        str(corpus / target),
        *LIMITS,
        f"-max_total_time={seconds}",
        f"-seed={seed}",
    ]
    command += ["-print_final_stats=1", f"-artifact_prefix={finds}/{target}-", "-use_value_profile=1"]
    command += [f"-dict={words}"] if words.stat().st_size else []
    profile = folder / "profiles" / f"{target}-%p.profraw"
    environment = os.environ | {
        "LLVM_PROFILE_FILE": str(profile),
        "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:handle_abort=2",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    (finds / f"{target}.log").write_text(done.stdout)
    executions = re.search(r"(?:number_of_executed_units: |Done )(\d+)", done.stdout)
    features = re.findall(r" ft: (\d+) corp: (\d+)", done.stdout)
    new = sorted(set(finds.glob(f"{target}-*")) - before)
    if done.returncode and not new:
        sys.exit(f"{target} failed:\n{done.stdout[-4000:]}")
    return Ran(int(executions[1]) if executions else 0, *(map(int, features[-1]) if features else (0, 0)), new)


def python_coverage(targets: list[str], folder: Path) -> str:
    """What of Python's readers the inputs that are kept reach, by lines and branches."""
    environment = os.environ | {"COVERAGE_FILE": str(folder / "python.coverage")}
    files = ",".join(f"*/sdltx/{name}" for name in READERS_IN_PYTHON)
    measure = [sys.executable, "-m", "coverage"]
    for target in targets:
        run_once = [str(PYTHON_READERS), target, str(folder / "corpus" / target), "--replay"]
        subprocess.run([*measure, "run", "--branch", "-a", *run_once], check=True, env=environment)
    report = [*measure, "report", f"--include={files}"]
    return subprocess.run(report, check=True, env=environment, capture_output=True, text=True).stdout


def coverage(program: Path, folder: Path) -> str:
    """What of the readers was reached, by lines and branches, in all runs so far."""
    profiles = sorted((folder / "profiles").glob("*.profraw"))
    merged = folder / "all.profdata"
    subprocess.run([tool("llvm-profdata"), "merge", "-sparse", *map(str, profiles), "-o", str(merged)], check=True)
    command = [tool("llvm-cov"), "report", str(program), f"-instr-profile={merged}", "--show-branch-summary"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    rows, sums = [], [0, 0, 0, 0]
    for line in done.stdout.splitlines():
        cells = line.split()
        if len(cells) != 13 or not cells[0].endswith(READERS):
            continue
        counts = [int(cells[i]) for i in (7, 8, 10, 11)]
        sums = [a + b for a, b in zip(sums, counts, strict=True)]
        rows.append((cells[0], *counts))
    rows.append(("all readers", *sums))
    share = [(name, reached(lines, missed), reached(branches, out)) for name, lines, missed, branches, out in rows]
    return "\n".join(f"{name:40} lines {lines}   branches {branches}" for name, lines, branches in share)


def reached(all: int, missed: int) -> str:
    """A share in percent, of how many."""
    return f"{100 * (all - missed) / all if all else 100:5.1f} % of {all:>5}"


def main() -> None:
    """Runs what the arguments say."""
    parser = argparse.ArgumentParser(prog="python tools/fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(seeds.SEEDS)} (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of what is tried (default: 1)")
    parser.add_argument("--rounds", type=int, default=1, help="how often; each with another seed (default: once)")
    parser.add_argument("--turn", type=int, help="two of what Python reads, at once, that this number chooses: for CI")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "fuzz", help="folder (default: build/fuzz)")
    args = parser.parse_args()
    if unknown := set(args.targets) - seeds.SEEDS.keys():
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    targets, found = args.targets or list(seeds.SEEDS), []
    if args.turn is not None:
        all_of_python = [target for target in seeds.SEEDS if is_python(target)]
        targets = [all_of_python[(2 * args.turn + i) % len(all_of_python)] for i in range(2)]
    in_python = [target for target in targets if is_python(target)]
    if len(in_python) < len(targets):
        start = time.monotonic()
        build(args.build)
        print(f"built in {time.monotonic() - start:.0f} s", flush=True)
    seeds.write(args.build / "corpus")
    for turn in range(args.rounds):
        with ThreadPoolExecutor(1 if args.turn is None else 2) as pool:
            runs = pool.map(
                lambda target, seed: run(target, args.build, args.seconds, seed), targets, repeat(args.seed + turn)
            )
            for target, ran in zip(targets, runs, strict=True):
                found += ran.finds
                print(
                    f"{target:18} {ran.executions:>10} runs {ran.features:>7} features {ran.inputs:>6} inputs",
                    *ran.finds,
                    flush=True,
                )
    if len(in_python) < len(targets):
        print(coverage(args.build / "tools" / "fuzz" / "sdltx-fuzz", args.build))
    if in_python and args.turn is None:
        print(python_coverage(in_python, args.build))
    if found:
        sys.exit(f"{len(found)} finds")


if __name__ == "__main__":
    main()
