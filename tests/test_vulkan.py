"""Vulkan's loader and drivers as they are found: none, old ones, and ones that fail. Only where Vulkan is built in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import TINY_CLIP, errors, run
from compare import assert_close

from sdltx import _core

pytestmark = pytest.mark.device
DRY_RUN = Path(__file__).parents[1] / "tools" / "dry_run" / "vulkan"

# A loader of Vulkan, in the little that is asked of it before a device is.
LOADER = """
#include <stdint.h>
#include <string.h>
typedef void (*function)(void);
static int version(uint32_t* v) { *v = VERSION; return 0; }
static int extensions(const char* layer, uint32_t* count, void* list) {
    if (list) strcpy(list, "VK_EXT_debug_utils");
    *count = 1;
    return 0;
}
static int create(const void* info, const void* allocator, void** instance) { *instance = (void*)8; return CREATE; }
static void destroy(void* instance, const void* allocator) {}
static int devices(void* instance, uint32_t* count, void** list) { *count = 0; return DEVICES; }
function vkGetInstanceProcAddr(void* instance, const char* name) {
    if (VERSION && !strcmp(name, "vkEnumerateInstanceVersion")) return (function)version;
    if (!strcmp(name, "vkEnumerateInstanceExtensionProperties")) return (function)extensions;
    if (!strcmp(name, "vkCreateInstance")) return (function)create;
    if (!strcmp(name, "vkDestroyInstance")) return (function)destroy;
    if (!strcmp(name, "vkEnumeratePhysicalDevices")) return (function)devices;
    return 0;
}
"""
VERSION_1_1, VERSION_1_3 = (1 << 22 | 1 << 12), (1 << 22 | 3 << 12)
FAILED, INCOMPATIBLE = -3, -9


def environment(folder):
    """That in which a library in ``folder`` is found first."""
    others = {name: value for name, value in os.environ.items() if name != "GGML_VK_VISIBLE_DEVICES"}
    return {**others, "LD_LIBRARY_PATH": str(folder)}


def loader(folder, version=VERSION_1_3, create=0, devices=0):
    """Makes such a loader."""
    (folder / "loader.c").write_text(LOADER)
    flags = [f"-D{name}={value}" for name, value in (("VERSION", version), ("CREATE", create), ("DEVICES", devices))]
    command = ["gcc", "-shared", "-fPIC", "-w", *flags, "loader.c", "-o", "libvulkan.so.1"]
    subprocess.run(command, cwd=folder, check=True)
    return environment(folder)


@pytest.mark.parametrize(
    ("stand_in", "why"),
    [
        ({"version": 0}, "is of Vulkan 1.0, and 1.2 is needed"),
        ({"version": VERSION_1_1}, "is of Vulkan 1.1, and 1.2 is needed"),
        ({"create": INCOMPATIBLE}, "no driver of a GPU answers"),
        ({"create": FAILED}, "no driver of a GPU answers"),
        ({"devices": FAILED}, "no driver of a GPU answers"),
        ({}, "no driver of a GPU answers"),
        (None, "libvulkan.so.1 is not there"),
    ],
)
def test_loaders_without_a_device(tmp_path, stand_in, why):
    if stand_in is None:
        (tmp_path / "libvulkan.so.1").write_bytes(b"")
    else:
        loader(tmp_path, **stand_in)
    told = run("doctor", env=environment(tmp_path))
    assert told.returncode == 0, told.stderr
    assert "backends   CPU, RPC, Vulkan" in told.stdout
    (hint,) = (line for line in told.stdout.splitlines() if "Vulkan is built in and finds no GPU" in line)
    assert why in hint
    assert not told.stderr

    clip = ["generate", "-p", "a", *TINY_CLIP, "-o", tmp_path / "clip.mp4"]
    refused = run(*clip, "--device", "vulkan0", env=environment(tmp_path))
    (line,) = errors(refused)
    assert "there is no device 'vulkan0' here" in line
    assert why in line
    made = run(*clip, "--device", "auto", "-v", env=environment(tmp_path))
    assert made.returncode == 0, made.stderr
    assert f"auto takes the CPU, Vulkan: {'' if why.startswith('no') else 'libvulkan.so.1 is'}" in made.stderr


def test_no_driver_is_asked_by_who_computes_on_the_cpu(tmp_path):
    """Loading one takes a tenth of a second and starts threads."""
    code = (
        "import sdltx\n"
        "with sdltx.load() as pipe: pipe.generate('a', width=32, height=32, num_frames=1, num_inference_steps=1)\n"
        "assert 'libvulkan' not in open('/proc/self/maps').read()\n"
        "from sdltx import doctor\n"
        "doctor.devices()\n"
        "assert 'libvulkan' in open('/proc/self/maps').read()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=loader(tmp_path, create=INCOMPATIBLE), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """The environment of a device that computes nothing, for which no shader is compiled."""
    folder = tmp_path_factory.mktemp("dry")
    include = os.environ.get("VULKAN_INCLUDE", "/usr/include")
    command = ["c++", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{include}"]
    subprocess.run([*command, DRY_RUN / "loader.cpp", "-o", folder / "libvulkan.so.1", "-ldl"], check=True)
    real = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, sys.argv[1]); import run; print(run.real_loader())",
            DRY_RUN,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "DRY_RUN_LOADER": real.stdout.strip()}


def clips(environment, **more):
    """What two clips of one pipeline come to."""
    code = (
        "import sdltx\n"
        "with sdltx.load(device='vulkan0') as pipe:\n"
        "    for _ in range(2):\n"
        "        try:\n"
        "            pipe.generate('a red circle', seed=1, width=96, height=64, num_frames=17, num_inference_steps=2)\n"
        "            print('done')\n"
        "        except Exception as error: print(type(error).__name__, error)\n"
        "print('closed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, **more}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("at", [1, 2, 5, 50, 100, 300])
def test_a_device_that_is_lost(dry, at):
    first, second, last = clips(dry, DRY_RUN_LOST_AT=str(at))
    for line in (first, second):
        assert line.startswith("BackendError [device] Vulkan fails")
        assert "ErrorDeviceLost" in line
    assert last == "closed"


@pytest.mark.parametrize("mib", [1, 3, 6, 8, 12])
def test_a_device_with_too_little_memory(dry, mib):
    first, second, last = clips(dry, DRY_RUN_MEMORY_MIB=str(mib))
    for line in (first, second):
        assert line.startswith(("OutOfMemoryError [", "BackendError [device]"))
    assert last == "closed"


def test_auto_takes_the_gpu(dry):
    def taken(mib):
        code = "import logging, sdltx; logging.basicConfig(level=20); sdltx.load(device='auto').close()"
        environment = {**dry, "DRY_RUN_MEMORY_MIB": str(mib)}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stderr

    assert "auto takes vulkan0" in taken(8192)
    assert "8.0 GiB free" in taken(8192)
    assert "auto takes the CPU, vulkan0 has 2.0 GiB free" in taken(2048)


def test_attention_adds_up_floats():
    """Where ggml says that BF16 is as fast, which we read from a line of its log; sums of halves are 2 % off here."""
    q, v = np.zeros((51, 2, 64), np.float32), np.full((6000, 2, 64), 1000, np.float32)
    v += np.random.default_rng(0).standard_normal(v.shape, np.float32) * 10
    _core.ops.set_device("vulkan0")
    try:
        out = _core.ops.attention(q, v, v, scale=0.125)[0]
    finally:
        _core.ops.set_device("cpu")
    assert_close("uniform", out, np.broadcast_to(v.mean(0), out.shape), 1e-4, on_device=1e-4)
