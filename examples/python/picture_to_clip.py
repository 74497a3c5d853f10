"""A picture to a clip that begins with it: python picture_to_clip.py PICTURE [MODEL...]"""

import sys

import sdltx

if len(sys.argv) == 1:
    sys.exit(__doc__)
picture, *model = sys.argv[1:]
with sdltx.load(*model) as pipe:
    video = pipe.generate("a red circle moves left over a white background", image=picture, seed=1)
    video.save("clip.mp4")
    # The same picture at the end makes a loop.
    video = pipe.generate("a red circle over a white background", image=picture, last_image=picture, seed=1)
    video.save("loop.webp")
