"""The frames of a clip through the C ABI and nothing but the standard library, as any language with a C interface can.

python frames.py $(sdltx-cli embed --libdir)/libsdltx.so FOLDER "a red circle moves left" MODEL_FILE...
"""

import ctypes
import sys
from pathlib import Path

FramesCallback = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, *[ctypes.c_int64] * 4, ctypes.c_void_p
)  # sdltx_frames_fn


class Callbacks(ctypes.Structure):
    """The fields of sdltx_callbacks."""

    _fields_ = [
        ("version", ctypes.c_uint32),
        ("reserved", ctypes.c_int32),
        ("progress", ctypes.c_void_p),
        ("on_step", ctypes.c_void_p),
        ("on_frames", FramesCallback),
        ("payload", ctypes.c_void_p),
    ]


PICTURES = 1


def main() -> None:
    """Makes a clip and writes every frame as soon as it is decoded."""
    library, folder, prompt, *files = sys.argv[1:]
    sdltx = ctypes.CDLL(library)
    sdltx.sdltx_last_error.restype = ctypes.c_char_p

    def check(status: int) -> None:
        if status:
            sys.exit(f"error: {sdltx.sdltx_last_error().decode()}")

    @FramesCallback
    def write(rgb, first, count, height, width, payload):
        size = height * width * 3
        for i in range(count):
            pixels = ctypes.string_at(rgb + i * size, size)
            header = f"P6\n{width} {height}\n255\n".encode()
            (Path(folder) / f"frame_{first + i + 1:04d}.ppm").write_bytes(header + pixels)
        return 0

    callbacks = Callbacks(version=1, on_frames=write)
    paths = (ctypes.c_char_p * len(files))(*(file.encode() for file in files))
    pipeline, request, video = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    check(sdltx.sdltx_load(paths, ctypes.c_size_t(len(files)), None, ctypes.byref(pipeline)))
    check(sdltx.sdltx_request_new(ctypes.byref(request)))
    check(sdltx.sdltx_request_set_text(request, b"prompt", prompt.encode()))
    check(sdltx.sdltx_generate(pipeline, request, PICTURES, ctypes.byref(callbacks), None, ctypes.byref(video)))
    sdltx.sdltx_video_free(video)
    sdltx.sdltx_request_free(request)
    sdltx.sdltx_pipeline_free(pipeline)


if __name__ == "__main__":
    main()
