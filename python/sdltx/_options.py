"""Written by tools/write_options.py from csrc/clip/options.def; edit that."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypedDict

if TYPE_CHECKING:
    from fractions import Fraction
else:
    from ._lazy import Fraction

File: TypeAlias = str | os.PathLike[str]
Lora: TypeAlias = File | tuple[File, float]


class Options(TypedDict, total=False):
    """Options of a clip. None, and what is not given, stands for the checkpoint's own default."""

    enhance: bool | None
    """Let the text encoder write the prompt out before it encodes it; it must be an instruct Gemma 3. The clip
    remembers what it wrote, as its prompt, and what it was given. Takes the time of as many runs of the text encoder as
    it writes words."""
    enhance_system: str | None
    """What it is told to do then (default: a short text of ours). The text itself in Python; on the command line a file
    of it."""
    enhanced_from: str | None
    """The prompt that this one was written out from, as a clip remembers it. With enhance it is written out anew."""
    width: int | None
    """Pixels, a multiple of 32."""
    height: int | None
    """Pixels, a multiple of 32."""
    num_frames: int | None
    """Frames, 8 k + 1."""
    duration: str | float | None
    """Seconds. The clip has the number of frames that comes nearest. auto needs a model with a duration head, as
    LTX-2.5 has one, and gives 1 to 20 seconds."""
    frame_rate: float | Fraction | None
    """Frames per second, such as 24 or 24000/1001."""
    seed: int | None
    """Of the start noise, 0 or more; -1: a random one (default). The result tells which it was. One seed gives one
    noise everywhere, and the same latents whatever the number of threads is."""
    audio: bool | None
    """Whether sound is made along with the picture (default). Without it a run is a little faster, and the picture
    another one: the two streams look at each other."""
    video: bool | None
    """Whether pictures are made (default); else sound alone. Sound alone is told how long it is by num_frames and
    frame_rate, takes a fraction of the time and reads no weights of the picture."""
    retake: Sequence[float] | None
    """Seconds. From 0 to 1e+06. Pictures change in groups of eight, sound in 40 ms. What lies outside stays as it is,
    but for short fades."""
    retake_of: str | None
    """What of the film is made anew (default: both). One of both, picture, sound."""
    extend: str | float | None
    """Seconds. In windows of num_frames, or as fit in memory, each of which sees the end of what is there."""
    extend_before: str | float | None
    """Seconds."""
    extend_context: int | None
    """Frames, 8 k + 1. From 9 to 1025."""
    foley: bool | None
    """Make the sound of the film that is given, whose pictures stay as they are."""
    decode_everywhere: bool | None
    """All pictures and sounds of a retake as the model decodes them, also those that were kept. As the reference does
    it."""
    dub: bool | None
    """Say the words of the prompt in the film that is given, with its voice; needs a LoRA for dubbing. The film's
    pictures are the reference of the new ones, its sound that of the voice."""
    reference_attention: float | Fraction | None
    """How strongly the clip and its references see each other, 0 to 1 (default: 1). From 0 to 1."""
    reference_downscale: int | None
    """How many times smaller than the clip references are (default: as the LoRA's file says, else 1). From 1 to 64."""
    reference_temporal: int | None
    """How many frames of the clip one of a reference stands for (default: as the LoRA's file says, else 1). From 1 to
    64."""
    recipe: str | None
    """How the clip is made (default: as fits the checkpoint, in two stages if there is an upscaler). One of distilled,
    distilled-two-stage, guided, guided-two-stage, hq, keyframes. Upscaler and distilled LoRA that it needs are also
    found in the folders of the model."""
    preset: str | None
    """Whose defaults and schedule apply (default: as fits the checkpoint). One of distilled-2.5, distilled, dev,
    dev-2.0, hq."""
    sampler: str | None
    """How a step goes; res_2s takes two estimates and double the time (default: the preset's). One of euler,
    gradient_estimation, euler_ancestral, res_2s."""
    num_inference_steps: int | None
    """Denoising steps of the default schedule. From 1 to 1000."""
    sigmas: Sequence[float] | None
    """Noise levels in place of a number of steps, falling from 1 to 0. From 0 to 1."""
    upscaler: File | Sequence[File] | None
    """Make the clip in two stages: smaller first (or with fewer frames, for an upscaler of frames), then upscaled and
    refined; width, height and number of frames are those of the result. The size is a multiple of 64 for a factor of
    two, and of 96 for one of 1.5; if it is not given, the first stage has the checkpoint's own."""
    loras: Iterable[Lora] | None
    """Change the model with a LoRA, at this strength (default: 1). The weights of the model stay as they are."""
    loras_stage2: Iterable[Lora] | None
    """The LoRAs of the second stage of two (default: those of the first)."""
    distilled_lora: File | None
    """The LoRA that makes a distilled checkpoint of the model, for recipes that refine with it; they know how strong
    (default: the one that lies in a folder of the model)."""
    num_generated_keyframes: int | None
    """Pictures that are made along with the clip, evenly over it, and that it finds its way through (default: 0). From
    0 to 64. For LTX-2.5, whose transformer tells them from others. They keep long clips together, and cost the time of
    as many latent frames."""
    guidance_scale: float | Fraction | None
    """Classifier-free guidance away from the negative prompt, 1: none; of the picture. From 0 to 100."""
    audio_guidance_scale: float | Fraction | None
    """The same of the sound. From 0 to 100."""
    stg_scale: float | Fraction | None
    """Guidance away from a pass without self-attention in some blocks, 0: none; of the picture. From 0 to 100."""
    audio_stg_scale: float | Fraction | None
    """The same of the sound. From 0 to 100."""
    stg_blocks: Sequence[int] | None
    """Blocks whose self-attention is left out, counted from 0 (default: the preset's)."""
    modality_scale: float | Fraction | None
    """Guidance away from a pass in which picture and sound do not see each other, 1: none; of the picture. From 0 to
    100."""
    audio_modality_scale: float | Fraction | None
    """The same of the sound. From 0 to 100."""
    guidance_rescale: float | Fraction | None
    """How far the spread of guided estimates is brought back, 0 to 1; of the picture. From 0 to 1."""
    audio_guidance_rescale: float | Fraction | None
    """The same of the sound. From 0 to 1."""
    guidance_skip_steps: int | None
    """Use an estimate of the picture for N more steps. From 0 to 1000. 0: every step has its own."""
    audio_guidance_skip_steps: int | None
    """Use an estimate of the sound for N more steps. From 0 to 1000. Steps that both skip cost nothing."""
    guidance_interval: Sequence[float] | None
    """Lowest and highest noise level with guidance (default: 0 and 1). From 0 to 1."""
    guidance_method: str | None
    """How the negative prompt counts (default: cfg). One of cfg, cfg_star, apg. "cfg_star" scales the negative estimate
    to the length of the other; "apg" is adaptive projected guidance."""
    apg_eta: float | Fraction | None
    """Weight of the parallel part with apg (default: 1). From -100 to 100. 1: as much as the rest."""
    apg_threshold: float | Fraction | None
    """Longest difference with apg, as an L2 norm (default: 0, any)."""
