"""What this installation can do on this machine, and what it lacks."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from . import _core, sound
from .errors import BackendError, InvalidRequestError

_LIBRARIES = {"numpy": "numpy", "av": "av", "pillow": "PIL.Image", "tqdm": "tqdm", "safetensors": "safetensors.numpy"}
_CPUINFO = Path("/proc/cpuinfo")
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_RENDER_NODES = Path("/dev/dri")  # one for each GPU
# What ggml calls instruction sets, and Linux; for the others it is the same word in small letters.
_FLAGS = {
    "SSE3": "pni",
    "AVX512": "avx512f",
    "NEON": "asimd",
    "DOTPROD": "asimddp",
    "FP16_VA": "asimdhp",
    "MATMUL_INT8": "i8mm",
}
_INSTRUCTION_SETS = (
    *("SSE3", "SSSE3", "AVX", "AVX2", "F16C", "FMA", "BMI2", "AVX_VNNI", "AVX512", "AVX512_VNNI"),
    *("AVX512_BF16", "AMX_INT8", "NEON", "DOTPROD", "FP16_VA", "MATMUL_INT8", "SVE"),
)


@dataclass(frozen=True)
class Device:
    """Something that computes."""

    name: str
    """As ``device`` of :func:`sdltx.load` takes it."""
    description: str
    """What its maker calls it."""
    kind: str
    """"cpu", "gpu", "remote" or "accelerator"."""
    memory_free: int
    """Bytes; of the CPU, what can be allocated without swapping and within the limits of a container."""
    memory_total: int
    """Bytes."""


@dataclass(frozen=True)
class Diagnosis:
    """An installation."""

    version: str
    ggml: str
    python: str
    system: str
    folder: str
    """Where the package is."""
    processor: str
    threads: int
    """Physical cores that this process may use."""
    level: str | None
    """The CPU kernels in use, such as "x86-64-v3", or "native": those of a build for the machine that built it. None if
    none run here, or SDLTX_CPU_KERNELS names none of them."""
    levels: tuple[str, ...]
    """Those that are built in and run here, the best first."""
    kernels: tuple[str, ...]
    """Instruction sets that the CPU kernels in use were built for."""
    unused: tuple[str, ...]
    """Further ones that the CPU has and the kernels would have a use for."""
    backends: tuple[str, ...]
    """Kinds of devices that are built in."""
    devices: tuple[Device, ...]
    libraries: dict[str, str | None]
    """Python libraries and their versions; None for what is missing or broken."""
    formats: dict[str, str | None]
    """Suffixes that outputs can have: the encoders that are used, or None if one is missing."""
    problems: tuple[str, ...]
    """What does not work, and how to mend it, a line each."""
    hints: tuple[str, ...]
    """What would make it better, a line each."""

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it in types that JSON has."""
        return asdict(self)

    def __str__(self) -> str:
        """Returns it in lines for people."""
        return "\n".join(f"{name:10} {text}" for name, text in _lines(self))


def devices() -> list[Device]:
    """Tells what can compute here, GPUs before the CPU; without workers."""
    found = [Device(**entry) for entry in _core.devices()]
    return sorted(found, key=lambda device: device.kind == "cpu")


def diagnose() -> Diagnosis:
    """Looks at this installation and this machine. Computes nothing, changes nothing and raises nothing."""
    problems: list[str] = []
    hints: list[str] = []
    processor, flags = _processor()
    built_in: dict[str, Any] = {}
    found: list[Device] = []
    level = None
    try:
        level = _core.cpu_kernels()
        built_in, found = _core.backends(), devices()
        _look_at_gpus(built_in, found, problems, hints)
    except (BackendError, InvalidRequestError) as error:
        problems.append(str(error).removeprefix("[device] "))
    kernels = [name for name in _INSTRUCTION_SETS if built_in.get("CPU", {}).get(name, "0") != "0"]
    unused = [name for name in _INSTRUCTION_SETS if name not in kernels and _flag(name) in flags] if built_in else []
    libraries = dict(_libraries(problems))
    return Diagnosis(
        version=_core.__version__,
        ggml=_core.ggml_version,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        folder=str(Path(__file__).parent),
        processor=processor,
        threads=_core.usable_processors(),
        level=level,
        levels=tuple(_core.cpu_kernel_names()),
        kernels=tuple(kernels),
        unused=tuple(unused),
        backends=tuple(sorted(built_in)),
        devices=tuple(found),
        libraries=libraries,
        formats=dict(_formats(problems)),
        problems=tuple(problems),
        hints=tuple(hints),
    )


def _flag(name: str) -> str:
    return _FLAGS.get(name, name.lower())


def _processor() -> tuple[str, frozenset[str]]:
    """Its name and the flags that Linux gives it; none if nothing tells."""
    fields: dict[str, str] = {}
    try:
        for line in _CPUINFO.read_text(errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon:
                fields.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, frozenset((fields.get("flags") or fields.get("Features") or "").split())


def _look_at_gpus(built_in: dict[str, Any], found: list[Device], problems: list[str], hints: list[str]) -> None:
    gpus = [device for device in found if device.kind == "gpu"]
    if "CUDA" in built_in and not any(device.name.startswith("cuda") for device in gpus):
        problems.append(
            "CUDA is built in and finds no device; check with nvidia-smi that the driver works and is new enough"
            if _NVIDIA_DRIVER.exists()
            else "CUDA is built in, and there is no NVIDIA driver; install one, or use --device cpu"
        )
    if "problem" in built_in.get("Vulkan", {}):
        hints.append(f"Vulkan is built in and finds no GPU: {built_in['Vulkan']['problem']}")
    if gpus:
        return
    if "CUDA" not in built_in and _NVIDIA_DRIVER.exists():
        hints.append(
            "there is an NVIDIA GPU, which this build does not use; with the CUDA toolkit, in the source folder: "
            "CMAKE_ARGS=-DSDLTX_CUDA=ON pip install --force-reinstall --no-deps ."
        )
    if "Vulkan" not in built_in and any(_RENDER_NODES.glob("renderD*")):
        hints.append(
            "there is a GPU, which this build does not use; with glslc and the headers of Vulkan (packages glslc, "
            "libvulkan-dev and spirv-headers of Debian 13 and Ubuntu 24.04 or newer), in the source folder: "
            "CMAKE_ARGS=-DSDLTX_VULKAN=ON pip install --force-reinstall --no-deps ."
        )


def _libraries(problems: list[str]) -> Iterator[tuple[str, str | None]]:
    from importlib import metadata  # which takes longer than all of this module

    for name, module in _LIBRARIES.items():
        try:
            import_module(module)
            yield name, metadata.version(name)
        except Exception as error:  # a broken library may raise anything
            problems.append(f"{name} cannot be imported ({error}); mend it with: pip install --force-reinstall {name}")
            yield name, None


def _formats(problems: list[str]) -> Iterator[tuple[str, str | None]]:
    try:
        import av  # noqa: F401 (also writes the sound)

        from ._encoders import FORMATS
    except Exception:  # _libraries() has said which library
        return
    for suffix, format in FORMATS.items():
        try:
            format.check()
            yield suffix, format.encoders
        except (BackendError, ImportError) as error:
            text = str(error).removeprefix("[output] ")
            problems.append(
                f"{suffix} cannot be written: {text}; mend it with: pip install --force-reinstall av pillow"
            )
            yield suffix, None
    yield sound.SUFFIX, sound.FORMATS["s16"]


def _lines(found: Diagnosis) -> Iterator[tuple[str, str]]:
    yield "sdltx", f"{found.version}, ggml {found.ggml}, Python {found.python}, {found.system}"
    yield "folder", found.folder
    plural = "" if found.threads == 1 else "s"
    yield "processor", f"{found.processor}, {found.threads} core{plural} to use"
    unused = f"; not used: {' '.join(found.unused)}" if found.unused else ""
    if found.level == "native":
        yield "kernels", "native: built for the kind of processor that built it"
    else:
        yield "kernels", f"{found.level or 'NONE'} of {', '.join(found.levels) or 'none that run here'}"
    yield "", f"{' '.join(found.kernels) or 'portable'}{unused}"
    yield "backends", ", ".join(found.backends)
    for device in found.devices:
        yield "device", device_line(device)
    yield "libraries", ", ".join(f"{name} {version or 'MISSING'}" for name, version in found.libraries.items())
    yield "writes", ", ".join(f"{suffix} ({using or 'NO'})" for suffix, using in found.formats.items())
    for name, lines in (("hint", found.hints), ("problem", found.problems)):
        for line in lines:
            yield name, line
    if not found.problems:
        yield "result", "no problem found"


def device_line(device: Device) -> str:
    """The device in a line for people."""
    free, total = device.memory_free / 2**30, device.memory_total / 2**30
    return f"{device.name:8} {device.description}, {free:.1f} of {total:.1f} GiB free"
