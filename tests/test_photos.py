"""Photos as phones, cameras and other programs write them."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
from commands import errors, generate
from PIL import Image, ImageCms, PngImagePlugin

import sdltx
from sdltx import images

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def read(path):
    return images.read(path)


def photo(path, **options):
    Image.fromarray(PIXELS).save(path, **options)
    return path


def test_a_preview_beside_the_photo(tmp_path):
    """Multi-picture format, whole and as chats leave it."""
    path = photo(
        tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.fromarray(PIXELS[::2, ::2])], quality=95
    )
    whole = read(path)
    assert whole.shape == PIXELS.shape
    stripped = tmp_path / "b.jpg"
    data = path.read_bytes()
    stripped.write_bytes(data[: data.find(b"\xff\xd9") + 2])
    np.testing.assert_array_equal(read(stripped), whole)
    with Image.open(path) as opened:
        opened.seek(1)
        np.testing.assert_array_equal(images.read(opened), whole)


def test_pages_of_a_tiff(tmp_path):
    photo(tmp_path / "a.tiff", save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    np.testing.assert_array_equal(read(tmp_path / "a.tiff"), PIXELS)


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_animations_are_refused(tmp_path, kind):
    photo(tmp_path / f"a.{kind}", save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    with pytest.raises(sdltx.InvalidRequestError, match="is an animation of 2 pictures"):
        read(tmp_path / f"a.{kind}")


def tiff_entry(tag, kind, count, value):
    return struct.pack("<HHI", tag, kind, count) + value


@pytest.mark.parametrize(
    "odd",
    [
        tiff_entry(0x011A, 2, 4, b"abc\0"),  # a resolution that is text
        tiff_entry(0x011A, 7, 4, b"\1\2\3\4"),
        tiff_entry(0x011A, 10, 1, struct.pack("<I", 62)),  # -1/0
        tiff_entry(0x8769, 4, 1, struct.pack("<I", 2**31)),  # a table beyond the end
        tiff_entry(0x010F, 2, 2**31 - 1, b"\0\0\0\0"),
        tiff_entry(0x9999, 99, 1, b"\0\0\0\0"),
    ],
)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_odd_exif(tmp_path, odd, orientation):
    """Only the tag that turns counts."""
    entries = [tiff_entry(0x0112, 3, 1, struct.pack("<HH", orientation, 0)), odd]
    entries.sort(key=lambda e: e[:2][::-1])
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4
    exif += b"\0" * (62 - len(exif) + 6) + struct.pack("<iI", -1, 0)
    path = photo(tmp_path / "a.png", exif=exif)
    turned = {1: PIXELS, 3: PIXELS[::-1, ::-1], 6: np.rot90(PIXELS, -1), 8: np.rot90(PIXELS)}[orientation]
    np.testing.assert_array_equal(read(path), turned)


def test_mutated_exif(tmp_path):
    """Bytes changed at random: a picture, turned or not, and never an error."""
    rng = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F], exif[0x011A], exif[0x0132] = "Maker", 72.0, "2024:01:01 00:00:00"
    plain = exif.tobytes()
    for i in range(300):
        data = bytearray(plain)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(6, len(data))] = rng.integers(256)
        path = photo(tmp_path / f"{i % 2}.png", exif=bytes(data))
        assert sorted(read(path).shape) == [3, 48, 64]


def display_p3() -> bytes:
    """A profile of the wide colours that phones write, from its primaries."""
    primaries, white = [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)], (0.3127, 0.3290)
    xyz = [np.array([x / y, 1, (1 - x - y) / y]) for x, y in (*primaries, white)]
    matrix = np.stack(xyz[:3], 1)
    matrix = matrix * np.linalg.solve(matrix, xyz[3])
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d50 = np.array([0.9642, 1, 0.8249])
    matrix = np.linalg.inv(bradford) @ np.diag((bradford @ d50) / (bradford @ xyz[3])) @ bradford @ matrix

    def fixed(values):
        return b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, 2) + b"x\0" + b"\0" * 78,
        b"cprt": b"text" + b"\0" * 4 + b"x\0\0\0",
    }
    tags[b"wtpt"] = b"XYZ " + b"\0" * 4 + fixed(d50)
    for i, colour in enumerate("rgb"):
        tags[f"{colour}XYZ".encode()] = b"XYZ " + b"\0" * 4 + fixed(matrix[:, i])
        tags[f"{colour}TRC".encode()] = b"curv" + b"\0" * 4 + struct.pack(">IH", 1, 563) + b"\0\0"
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        table += name + struct.pack(">II", at + len(body), len(value))
        body += value
    head = struct.pack(
        ">I4sI4s4s4s12s4s", 128 + len(table) + len(body), b"", 0x02100000, b"mntr", b"RGB ", b"XYZ ", b"", b"acsp"
    )
    return (head.ljust(68, b"\0") + fixed(d50)).ljust(128, b"\0") + table + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_of_a_profile(tmp_path, mode):
    profile = display_p3()
    image = Image.fromarray(PIXELS).quantize(32) if mode == "P" else Image.fromarray(PIXELS).convert(mode)
    image.save(tmp_path / "a.png", icc_profile=profile)
    theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    want = ImageCms.profileToProfile(image.convert("RGB"), theirs, ImageCms.createProfile("sRGB"), outputMode="RGB")
    got = read(tmp_path / "a.png")
    np.testing.assert_array_equal(got, np.asarray(want))
    assert np.abs(got.astype(int) - np.asarray(image.convert("RGB"))).max() > 20


@pytest.mark.parametrize("profile", [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"junk" * 50])
def test_profiles_that_change_nothing(tmp_path, profile):
    path = photo(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(read(path), PIXELS)


def test_a_gray_profile_of_a_coloured_picture(tmp_path):
    gray = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    np.testing.assert_array_equal(read(photo(tmp_path / "a.png", icc_profile=gray)), PIXELS)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "tEXt", "many", "profile"])
def test_long_texts_in_a_png(tmp_path, kind):
    """Workflows of other programs, and profiles, longer than Pillow takes."""
    info = PngImagePlugin.PngInfo()
    if kind == "zTXt":
        info.add_text("workflow", "a" * 2_000_000, zip=True)
    elif kind == "iTXt":
        info.add_itxt("workflow", "b" * 2_000_000, zip=True)
    elif kind == "tEXt":
        info.add_text("workflow", "c" * 2_000_000)
    elif kind == "many":
        for i in range(70):
            info.add_text(f"k{i}", "c" * 1_000_000)
    options = {"icc_profile": b"\0" * 2_000_000} if kind == "profile" else {"pnginfo": info}
    np.testing.assert_array_equal(read(photo(tmp_path / "a.png", **options)), PIXELS)


@pytest.mark.parametrize("cut", [10, 60, 500])
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "tiff"])
def test_broken_pictures(tmp_path, kind, cut):
    path = photo(tmp_path / f"a.{kind}")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(sdltx.InvalidRequestError, match=r"\[image\]"):
        read(path)


def test_a_broken_picture_of_pillow(tmp_path):
    path = photo(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-500])
    with Image.open(path) as opened, pytest.raises(sdltx.InvalidRequestError, match="is broken"):
        images.read(opened)


@pytest.mark.parametrize("shape", [(4, 16_386), (20_000, 4), (16_384, 3), (2, 20_000)])
def test_longer_than_h264_takes(shape):
    got = images.pixels(sdltx.Condition(np.full((*shape, 3), 99, np.uint8)), 33)
    assert max(got.shape) <= 16_384
    assert np.abs(got.astype(int) - 99).max() < 8


@pytest.mark.by_day(0)
def test_large_photos_make_no_noise(tmp_path):
    Image.new("RGB", (9_500, 9_500), (9, 99, 200)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path / "a.png").shape == (9_500, 9_500, 3)


def test_a_photo_is_read_and_compressed_once(tmp_path):
    """The command looks at a picture before it opens the model, and keeps what it saw."""
    import subprocess
    import sys

    photo(tmp_path / "a.png")
    code = f"""
import sys
from sdltx import _pictures, cli, images
counts = {{"read": 0, "compressed": 0}}
read, compressed = _pictures.read, images._compressed
def counting_read(*args):
    counts["read"] += 1
    return read(*args)
def counting_compressed(*args):
    counts["compressed"] += 1
    return compressed(*args)
_pictures.read, images._compressed = counting_read, counting_compressed
words = ["-W", "64", "-H", "64", "--num-frames", "9", "--steps", "1", "-o", {str(tmp_path / "x.gif")!r}]
assert cli.main(["generate", "-p", "x", "-q", "-i", {str(tmp_path / "a.png")!r}, *words]) == 0
assert counts == {{"read": 1, "compressed": 1}}, counts
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_heic(tmp_path):
    """With pillow-heif it is read; without, the message names it."""
    path = tmp_path / "a.heic"
    path.write_bytes(struct.pack(">I4s4sI4s", 24, b"ftyp", b"heic", 0, b"mif1") + bytes(100))
    done = generate("-i", path, "-o", tmp_path / "x.gif")
    assert done.returncode == 2
    assert "cannot read" in errors(done)[0]
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        assert "install pillow-heif" in errors(done)[0]


def test_whole_numbers_of_32_bits():
    """An array of bytes in a wider type is no dark picture of 16 bits."""
    gray = PIXELS[..., 0]
    for values, want in ((gray.astype(np.int32), gray), (gray.astype(np.int32) * 257, gray)):
        np.testing.assert_array_equal(images.read(Image.fromarray(values))[..., 0], want)


@pytest.mark.by_day(5)
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "tiff", "bmp", "ppm", "tga", "ico", "dds", "sgi"])
def test_mutated_pictures(tmp_path, kind):
    """Bytes changed at random: a picture or one typed error."""
    plain = photo(tmp_path / f"a.{kind}").read_bytes()
    animated = b""
    if kind in ("gif", "webp", "png"):
        animated = photo(
            tmp_path / f"b.{kind}", save_all=True, append_images=[Image.fromarray(255 - PIXELS)]
        ).read_bytes()
    rng = np.random.default_rng(2)
    for i in range(150):
        data = bytearray(animated if animated and i % 2 else plain)
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(min(len(data), 300))] = rng.integers(256)
        path = tmp_path / f"{i % 2}.{kind}"
        path.write_bytes(bytes(data))
        try:
            assert read(path).ndim == 3
        except sdltx.InvalidRequestError as error:
            assert str(error).startswith("[image]")


def test_programs_are_no_pictures(tmp_path):
    path = tmp_path / "a.eps"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(sdltx.InvalidRequestError, match="none that Pillow reads"):
        read(path)
