"""A prompt to a clip: python text_to_clip.py [MODEL...]

MODEL: a set such as ltx-2.3-distilled:q4_k_m, or files; without one the small model of the package.
"""

import sys

import sdltx

PROMPT = "a red triangle moves right over a navy background, with high beeps"

with sdltx.load(*sys.argv[1:]) as pipe:
    plan = pipe.resolve(PROMPT)
    print(f"{plan.width}x{plan.height}, {plan.num_frames} frames, {plan.num_inference_steps} steps on {pipe.device}")
    print(f"about {pipe.estimate(PROMPT).memory / 2**30:.1f} GiB of memory")
    video = pipe.generate(PROMPT, seed=1)
    video.save("clip.mp4")
    print(video)
