"""Sets of files that make up a model together, and where they are published.

A set is named ``family:variant``, such as ``ltx-2.3-distilled:q4_k_m``. What is known of a file without asking: who
publishes it, what it is good for, about how large it is, and under which licence. Its exact size and its checksum are
the hub's to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from .errors import InvalidRequestError

LTX_LICENCE = "LTX-2 Community License"
GEMMA_LICENCE = "Gemma Terms of Use"
_TRANSFORMER, _ALL_BUT_TEXT = "transformer", "all but the text encoder"


@dataclass(frozen=True)
class PublishedFile:
    """A file of a repository, or a folder of it."""

    repository: str
    """Such as "Lightricks/LTX-2.3"."""
    path: str
    """In the repository; "" for a text encoder that is the whole repository, a folder of several files."""
    part: str
    """What of a model it holds."""
    gigabytes: float
    """About how large it is, in 10^9 bytes."""
    licence: str = LTX_LICENCE
    gated: bool = False
    """Whether its publisher wants its licence accepted on the repository's page first."""
    option: str = ""
    """Its name for ``sdltx-cli pull --with``, of what a clip can be made without."""

    @property
    def name(self) -> str:
        """What it is called here: the last part of its path, or the repository's name."""
        return PurePosixPath(self.path or self.repository).name

    @property
    def has_transformer(self) -> bool:
        """Whether it is what its set has for itself; sets share the others."""
        return self.part in (_TRANSFORMER, _ALL_BUT_TEXT)

    @property
    def page(self) -> str:
        """Where people read about it."""
        return f"https://huggingface.co/{self.repository}"


@dataclass(frozen=True)
class ModelSet:
    """Files that a clip can be made with."""

    family: str
    variant: str
    purpose: str
    files: tuple[PublishedFile, ...]

    @property
    def name(self) -> str:
        """Such as "ltx-2.3-distilled:q4_k_m"."""
        return f"{self.family}:{self.variant}"

    @property
    def needed(self) -> tuple[PublishedFile, ...]:
        """Without the optional ones."""
        return tuple(file for file in self.files if not file.option)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the optional ones."""
        return tuple(file.option for file in self.files if file.option)

    @property
    def gigabytes(self) -> float:
        """About how large the needed files are together, in 10^9 bytes."""
        return sum(file.gigabytes for file in self.needed)

    def chosen(self, options: tuple[str, ...] = ()) -> tuple[PublishedFile, ...]:
        """Returns the needed files and the optional ones of these names. Raises InvalidRequestError for others."""
        for option in options:
            if option not in self.options:
                known = ", ".join(self.options) or "none"
                raise InvalidRequestError(f"[pull] {self.name} has no option {option!r}; it has {known}")
        return tuple(file for file in self.files if not file.option or file.option in options)


_ORIGINAL = "Lightricks/LTX-2.3"
_QUANTISED = "unsloth/LTX-2.3-GGUF"
_NEWEST = "Lightricks/LTX-2.5"
_UPSCALERS = (
    PublishedFile(_ORIGINAL, "ltx-2.3-spatial-upscaler-x2-1.1.safetensors", "spatial upscaler", 1.0, option="upscaler"),
    PublishedFile(
        _ORIGINAL, "ltx-2.3-temporal-upscaler-x2-1.0.safetensors", "temporal upscaler", 0.26, option="temporal-upscaler"
    ),
)
_DISTILLED_LORA = PublishedFile(
    _ORIGINAL, "ltx-2.3-22b-distilled-lora-384.safetensors", "distilled LoRA", 7.6, option="distilled-lora"
)
# Name, GB of the transformer, which text encoder goes with it, and for whom it is.
_QUANTISATIONS = (
    ("q2_k", "Q2_K", 7.9, "Q4_K_M", "the smallest; pictures lose detail"),
    ("q3_k_m", "Q3_K_M", 10.6, "Q4_K_M", "small; a little soft"),
    ("q4_k_m", "Q4_K_M", 14.2, "Q4_K_M", "the usual choice"),
    ("q6_k", "Q6_K", 17.8, "Q4_K_M", "hard to tell from the original"),
    ("q8_0", "Q8_0", 22.8, "Q8_0", "nearly exact"),
)
_ENCODERS = {"Q4_K_M": 7.3, "Q8_0": 12.5}


def _gemma3(quantisation: str) -> PublishedFile:
    return PublishedFile(
        "unsloth/gemma-3-12b-it-GGUF",
        f"gemma-3-12b-it-{quantisation}.gguf",
        "text encoder",
        _ENCODERS[quantisation],
        GEMMA_LICENCE,
    )


def _companions(kind: str) -> tuple[PublishedFile, ...]:
    return (
        PublishedFile(_QUANTISED, f"vae/ltx-2.3-22b-{kind}_video_vae.safetensors", "video VAE", 1.45),
        PublishedFile(_QUANTISED, f"vae/ltx-2.3-22b-{kind}_audio_vae.safetensors", "audio VAE, vocoder", 0.36),
        PublishedFile(
            _QUANTISED,
            f"text_encoders/ltx-2.3-22b-{kind}_embeddings_connectors.safetensors",
            "text projection",
            2.31,
        ),
    )


def _sets_of(family: str, kind: str, folder: str, name: str, options: tuple[PublishedFile, ...]) -> Iterator[ModelSet]:
    for variant, quantisation, gigabytes, encoder, purpose in _QUANTISATIONS:
        transformer = PublishedFile(_QUANTISED, f"{folder}{name}-{quantisation}.gguf", _TRANSFORMER, gigabytes)
        files = (transformer, *_companions(kind), _gemma3(encoder), *options)
        yield ModelSet(family, variant, purpose, files)
    eight_bits = PublishedFile(f"{_ORIGINAL}-fp8", f"ltx-2.3-22b-{kind}-fp8.safetensors", _ALL_BUT_TEXT, 29.1)
    yield ModelSet(family, "fp8", "8 bits, by its makers", (eight_bits, _gemma3("Q8_0"), *options))
    original = PublishedFile(_ORIGINAL, f"{name}.safetensors", _ALL_BUT_TEXT, 46.1)
    gemma = PublishedFile("google/gemma-3-12b-it", "", "text encoder", 24.4, GEMMA_LICENCE, gated=True)
    yield ModelSet(family, "bf16", "the original, exact", (original, gemma, *options))


def _newest(kind: str, variant: str, transformer: str, gigabytes: float, purpose: str) -> ModelSet:
    return ModelSet(
        f"ltx-2.5-{kind}",
        variant,
        purpose,
        tuple(
            PublishedFile(_NEWEST, path, part, size, gated=True, option=option)
            for path, part, size, option in (
                (f"diffusion_models/{transformer}", _TRANSFORMER, gigabytes, ""),
                (
                    "text_encoders/gemma4-12b-with-proj-ltx-2.5-comfy-int8-convrot.safetensors",
                    "text encoder, text projection",
                    15.37,
                    "",
                ),
                ("vae/ltx-2.5-video-vae-conv-bf16.safetensors", "video VAE", 1.45, ""),
                ("vae/ltx-2.5-audio-vae-bf16.safetensors", "audio VAE, vocoder", 0.36, ""),
                (
                    "latent_upscale_models/ltx-2.5-latent-spatial-upscaler-x2-bf16-1.0.safetensors",
                    "spatial upscaler",
                    1.0,
                    "upscaler",
                ),
            )
        ),
    )


SETS: tuple[ModelSet, ...] = (
    *_sets_of("ltx-2.3-distilled", "distilled", "distilled-1.1/", "ltx-2.3-22b-distilled-1.1", _UPSCALERS),
    *_sets_of("ltx-2.3-dev", "dev", "", "ltx-2.3-22b-dev", (*_UPSCALERS, _DISTILLED_LORA)),
    _newest(
        "distilled", "int8", "ltx-2.5-22b-distilled-transformer-comfy-int8-convrot.safetensors", 21.5, "by its makers"
    ),
    _newest("distilled", "nvfp4", "ltx-2.5-22b-distilled-transformer-nvfp4.safetensors", 18.7, "4 bits, by its makers"),
    _newest("dev", "int8", "ltx-2.5-22b-dev-transformer-comfy-int8-convrot.safetensors", 21.5, "by its makers"),
)
USUAL = {"ltx-2.3-distilled": "q4_k_m", "ltx-2.3-dev": "q4_k_m", "ltx-2.5-distilled": "int8", "ltx-2.5-dev": "int8"}
"""Of each family the variant that is meant when none is given."""

_SPELLING = re.compile(r"[a-z0-9][a-z0-9.-]*(:[a-z0-9_]+)?")


def set_named(text: str) -> ModelSet | None:
    """Returns the set of a name, in capitals or not, or None. Without a variant it is the family's usual one."""
    family, _, variant = text.lower().partition(":")
    variant = variant or USUAL.get(family, "")
    return next((one for one in SETS if (one.family, one.variant) == (family, variant)), None)


def looks_like_a_set(text: str) -> bool:
    """Whether text is spelt as names of sets are, ones that do not exist too, and as few files are."""
    family = text.lower().partition(":")[0]
    return bool(_SPELLING.fullmatch(text.lower())) and (family in USUAL or bool(re.match(r"ltx-?\d[\w.-]*:", text)))


def require_set(where: str, text: str) -> ModelSet:
    """Returns the set of a name. Raises InvalidRequestError with the nearest names if there is none."""
    if found := set_named(text):
        return found
    import difflib

    names = [one.name for one in SETS]
    near = difflib.get_close_matches(text.lower(), [*names, *USUAL], 3, 0.5)
    family = text.lower().partition(":")[0]
    if family in USUAL:
        variants = ", ".join(one.variant for one in SETS if one.family == family)
        raise InvalidRequestError(f"[{where}] there is no model set {text!r}; of {family} there are {variants}")
    advice = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
    raise InvalidRequestError(f"[{where}] there is no model set {text!r}; {advice}")
