"""Another ggml in the same process, as llama-cpp-python brings one, and ours do not meet."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

# Functions that every ggml has. In the stand-in each of them ends the process.
NAMES = (
    *(
        "ggml_init",
        "ggml_free",
        "ggml_new_tensor",
        "ggml_new_tensor_2d",
        "ggml_nelements",
        "ggml_nbytes",
        "ggml_mul_mat",
    ),
    *("ggml_add", "ggml_time_us", "ggml_time_init", "ggml_log_set", "ggml_abort", "ggml_type_size", "ggml_row_size"),
    *("ggml_get_type_traits", "ggml_quantize_init", "ggml_critical_section_start", "ggml_new_graph_custom"),
    *("ggml_graph_plan", "ggml_graph_compute", "ggml_cpu_init", "ggml_backend_cpu_reg", "ggml_backend_cpu_buffer_type"),
    *("ggml_backend_reg_count", "ggml_backend_dev_count", "ggml_backend_dev_get", "ggml_backend_dev_init"),
    *("ggml_backend_sched_new", "ggml_backend_sched_graph_compute_async", "ggml_backend_tensor_set", "gguf_init_empty"),
)
LIBRARIES = ("libggml-base.so.0", "libggml-cpu.so.0", "libggml.so.0")
# Each may be another ggml, or bring one.
MODULES = [name for name in ("llama_cpp", "libggml", "ggml") if importlib.util.find_spec(name)]
CHILD = """
import ctypes, hashlib, importlib, sys

def other():
    for name in sys.argv[2:]:
        if name.endswith((".0", ".so")):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        else:
            importlib.import_module(name)

def clip():
    with sdltx.load() as pipe:
        video = pipe.generate("a blue square", width=64, height=64, num_frames=9, seed=1)
    print(hashlib.sha256(video.frames.tobytes() + video.audio.tobytes()).hexdigest(), flush=True)

if sys.argv[1] == "before":
    other()
import sdltx
clip()
other()
clip()
"""


@pytest.fixture(scope="module")
def expected():
    return run("before")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ggml")
    source = folder / "x.c"
    functions = (f'void {name}(void) {{ fputs("{name} of another ggml\\n", stderr); abort(); }}' for name in NAMES)
    source.write_text("#include <stdio.h>\n#include <stdlib.h>\n" + "\n".join(functions))
    for name in LIBRARIES:
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source]
        subprocess.run(list(map(str, command)), check=True)
    return [str(folder / name) for name in LIBRARIES]


def run(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
    return first


@pytest.mark.by_day(0)
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("other", ["stand-in", *MODULES])
def test_in_one_process(stand_in, expected, order, other):
    assert run(order, *(stand_in if other == "stand-in" else [other])) == expected


@pytest.mark.by_day(0)
def test_a_preloaded_stand_in(stand_in, expected):
    assert run("before", LD_PRELOAD=" ".join(stand_in)) == expected


@pytest.mark.by_day(0)
def test_the_stand_in_is_met_by_others(stand_in):
    """It would end a process whose ggml is visible."""
    code = f"import ctypes; ctypes.CDLL({stand_in[0]!r}).ggml_init()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode < 0
    assert "ggml_init of another ggml" in done.stderr
