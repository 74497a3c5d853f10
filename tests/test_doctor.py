"""What works here is told, and what does not is named with how to mend it."""

from __future__ import annotations

import json
import os

import pytest
from commands import errors, run

import sdltx
from sdltx import _core, _encoders, doctor


def test_a_sound_installation():
    done = run("doctor")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    for word in (sdltx.__version__, "CPU, RPC", "libx264 and aac", "no problem found", "device     cpu"):
        assert word in done.stdout
    told = json.loads(run("doctor", "--json").stdout)
    assert told.keys() == doctor.diagnose().to_dict().keys()
    assert told["threads"] == _core.usable_processors()
    assert set(told["formats"]) == {*_encoders.FORMATS, ".wav"}
    assert all(told["libraries"].values())


def test_devices_are_what_load_takes():
    told = json.loads(run("devices", "--json").stdout)
    assert [device["name"] for device in told] == [device.name for device in sdltx.devices()]
    assert told[-1]["name"] == "cpu"
    assert run("devices").stdout.splitlines()[-1].startswith("cpu ")
    for device in sdltx.devices():
        assert 0 < device.memory_free <= device.memory_total
        assert sdltx.load(device=device.name).device == device.name


def test_kernels_are_compared_with_the_processor(tmp_path, monkeypatch):
    kernels = {"SSE3": "1", "AVX2": "1", "AVX512": "0", "LLAMAFILE": "1"}
    monkeypatch.setattr(_core, "backends", lambda: {"CPU": kernels, "RPC": {}})
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(doctor, "_CPUINFO", cpuinfo)
    cpuinfo.write_text("model name\t: Old 1\nflags\t\t: fpu pni\n\nprocessor\t: 1\nflags\t\t: fpu pni avx2\n")
    found = doctor.diagnose()
    assert found.processor == "Old 1"
    assert found.kernels == ("SSE3", "AVX2")
    # What kernels need and a processor lacks, the core tells: tests/test_cpu_kernels.py.
    assert found.unused == ()
    cpuinfo.write_text("model name\t: New 1\nflags\t\t: fpu pni avx2 avx512f amx_int8\n")
    found = doctor.diagnose()
    assert (found.problems, found.unused) == ((), ("AVX512", "AMX_INT8"))
    cpuinfo.unlink()
    found = doctor.diagnose()
    assert (found.problems, found.unused) == ((), ())


def test_gpus_without_their_driver_or_their_backend(tmp_path, monkeypatch):
    driver = tmp_path / "version"
    nodes = tmp_path / "dri"
    nodes.mkdir()
    monkeypatch.setattr(doctor, "_NVIDIA_DRIVER", driver)
    monkeypatch.setattr(doctor, "_RENDER_NODES", nodes)
    monkeypatch.setattr(_core, "backends", lambda: {"CPU": {}, "RPC": {}})
    assert not doctor.diagnose().hints
    (nodes / "renderD128").touch()
    (hint,) = doctor.diagnose().hints
    assert "SDLTX_VULKAN=ON" in hint
    monkeypatch.setattr(_core, "backends", lambda: {"CPU": {}, "Vulkan": {"problem": "it is old"}})
    (hint,) = doctor.diagnose().hints
    assert hint.endswith("finds no GPU: it is old")
    (nodes / "renderD128").unlink()
    driver.write_text("NVRM version: 1")
    monkeypatch.setattr(_core, "backends", lambda: {"CPU": {}, "RPC": {}})
    (hint,) = doctor.diagnose().hints
    assert "SDLTX_CUDA=ON" in hint
    monkeypatch.setattr(_core, "backends", lambda: {"CPU": {}, "CUDA": {}})
    cpu = {"name": "cpu", "description": "x", "kind": "cpu", "memory_free": 1, "memory_total": 2}
    monkeypatch.setattr(_core, "devices", lambda: [cpu])
    found = doctor.diagnose()
    assert "nvidia-smi" in found.problems[0]
    driver.unlink()
    assert "no NVIDIA driver" in doctor.diagnose().problems[0]
    monkeypatch.setattr(_core, "devices", lambda: [cpu, {**cpu, "name": "cuda0", "kind": "gpu"}])
    found = doctor.diagnose()
    assert not found.problems
    assert [device.name for device in found.devices] == ["cuda0", "cpu"]


def test_missing_libraries_and_encoders(tmp_path, monkeypatch):
    (tmp_path / "tqdm.py").write_text("raise ImportError('it is broken')\n")
    done = run("doctor", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 6
    assert "tqdm MISSING" in done.stdout
    assert "pip install --force-reinstall tqdm" in done.stdout
    assert errors(done) == ["error: [doctor] 1 problem, see above"]
    broken = _encoders.ContainerFormat("mp4", "no_such_encoder", {}, "aac", {})
    monkeypatch.setitem(_encoders.FORMATS, ".mp4", broken)
    found = doctor.diagnose()
    assert found.formats[".mp4"] is None
    assert "no_such_encoder" in found.problems[0]


@pytest.mark.parametrize("command", ["doctor", "devices"])
def test_help(command):
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"sdltx-cli {command} --json" in done.stdout


@pytest.mark.skipif("Vulkan" in _core.backends(), reason="Vulkan is built in")
def test_a_gpu_of_a_library_that_is_not_built_in():
    with pytest.raises(sdltx.BackendError, match=r"no device 'vulkan0' here.*Vulkan is not built in; sdltx-cli doctor"):
        sdltx.load(device="vulkan0")
