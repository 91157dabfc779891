"""Decoding against Pillow, and everything that must not be decoded."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from angulus.core import limits
from angulus.core.checks import InputError
from angulus.data import decode as decoding
from angulus.data.decode import Header, decode, header
from data.pictures import encoded, jpeg, noise, png, png_that_says, turned


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("WebP", {"lossless": True})])
def test_lossless_kinds_come_back_exactly(kind: str, options: dict[str, bool]) -> None:
    pixels = noise(3, 13, 7)
    data = encoded(pixels, kind, **options)
    assert np.array_equal(decode(data), pixels)
    assert (header(data).kind, header(data).width, header(data).height) == (kind, 13, 7)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"subsampling": 2}])
def test_jpeg_as_pillow_decodes_it(options: dict[str, int]) -> None:
    smooth = np.linspace(0, 255, 40 * 30 * 3).reshape(30, 40, 3).astype(np.uint8)
    data = encoded(smooth, "JPEG", **options)
    assert np.abs(decode(data).astype(int) - by_pillow(data)).max() <= 3
    assert header(data) == Header("JPEG", 40, 30)


@pytest.mark.parametrize("quality", [50, 90])
def test_lossy_webp(quality: int) -> None:
    data = encoded(noise(1, 20, 16), "WebP", quality=quality)
    assert np.abs(decode(data).astype(int) - by_pillow(data)).max() <= 3
    assert header(data) == Header("WebP", 20, 16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 100}), ("PNG", {}), ("WebP", {"lossless": True})])
def test_exif_turns_the_image(orientation: int, kind: str, options: dict[str, int]) -> None:
    pixels = np.kron(noise(2, 6, 4), np.ones((8, 8, 1), dtype=np.uint8))
    data = turned(pixels, orientation, kind, **options)
    found = decode(data)
    assert found.shape == by_pillow(data).shape == ((32, 48, 3) if orientation < 5 else (48, 32, 3))
    assert np.abs(found.astype(int) - by_pillow(data)).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_grey_becomes_three_equal_channels(kind: str) -> None:
    grey = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (9, 1))
    found = decode(encoded(grey, kind))
    assert found.shape == (9, 24, 3)
    assert np.ptp(found, axis=2).max() == 0
    assert np.abs(found[..., 0].astype(int) - grey).max() <= 2


def test_cmyk_as_adobe_stores_it() -> None:
    pixels = np.kron(np.array([[[255, 0, 0], [0, 200, 0]], [[20, 30, 240], [250, 250, 250]]]), np.ones((16, 16, 1)))
    data = encoded(Image.fromarray(pixels.astype(np.uint8)).convert("CMYK"), "JPEG", quality=98)
    assert np.abs(decode(data).astype(int) - pixels).max() <= 8


def test_cmyk_that_does_not_say_how_is_refused() -> None:
    data = encoded(Image.new("CMYK", (8, 8)), "JPEG")
    place = data.index(b"\xff\xeeX"[:2])
    (length,) = struct.unpack_from(">H", data, place + 2)
    with pytest.raises(InputError, match="no Adobe marker"):
        decode(data[:place] + data[place + 2 + length :])


def test_16_bits_keep_the_high_byte() -> None:
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    assert np.array_equal(decode(encoded(deep))[..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("kind", ["PNG", "WebP"])
def test_transparent_pixels_show_white(kind: str) -> None:
    pixels = np.zeros((4, 6, 4), dtype=np.uint8)
    pixels[:, :2] = (200, 100, 0, 255)
    pixels[:, 2:4] = (200, 100, 0, 128)
    found = decode(encoded(pixels, kind, **({"lossless": True} if kind == "WebP" else {})))
    assert found[0].tolist() == [[200, 100, 0]] * 2 + [[227, 177, 127]] * 2 + [[255, 255, 255]] * 2


def test_alpha_that_hides_nothing_changes_nothing() -> None:
    opaque = np.dstack([noise(5), np.full((10, 12), 255, dtype=np.uint8)])
    assert np.array_equal(decode(encoded(opaque)), noise(5))
    assert np.array_equal(decode(turned(opaque, 3, "PNG")), noise(5)[::-1, ::-1])


def test_grey_and_palette_with_transparency() -> None:
    grey = Image.fromarray(np.dstack([np.full((2, 2), 40, np.uint8), np.array([[255, 0], [255, 255]], np.uint8)]), "LA")
    assert decode(encoded(grey))[..., 0].tolist() == [[40, 255], [40, 40]]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert decode(encoded(palette, transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert decode(encoded(palette)).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def deep_png(width: int, height: int, raw: bytes) -> bytes:
    """RGBA of 16 bits, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_16_bits_with_transparency() -> None:
    raw = struct.pack(">BHHHHHHHH", 0, *(0x8000, 0x4000, 0xFF00, 0xFFFF), *(1, 2, 3, 0))
    assert decode(deep_png(2, 1, raw)).tolist() == [[[128, 64, 255], [255, 255, 255]]]


def test_an_image_is_turned_and_blended() -> None:
    pixels = np.zeros((2, 3, 4), dtype=np.uint8)
    pixels[0] = (10, 20, 30, 255)
    assert decode(turned(pixels, 6, "PNG")).tolist() == [[[255] * 3, [10, 20, 30]]] * 3


def test_a_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"at most 89,478,485 pixels; its header says 3600000000 pixels; .*--max-unpacked"
    ):
        decode(png_that_says(60_000, 60_000))
    monkeypatch.setenv(limits.VARIABLE, str(100 * decoding.BYTES_PER_PIXEL))
    with pytest.raises(InputError, match="at most 100 pixels; its header says 11x10"):
        header(png(0, 11, 10))
    assert header(png(0, 10, 10)).width == 10


def test_a_raised_limit_lets_larger_images_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow has a limit of its own, which a photo of 200 megapixels passes."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv(limits.VARIABLE, "16G")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert header(png_that_says(20_000, 20_000)).width == 20_000
    with pytest.raises(InputError, match=r"at most 1,431,655,765 pixels; its header says 3600000000 pixels"):
        header(png_that_says(60_000, 60_000))


def test_a_large_transparent_image_takes_bounded_memory(tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(deep_png(9_400, 9_400, bytes(9_400 * 8 + 1) * 9_400))
    code = (
        "import resource, sys; from angulus.data.decode import decode\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert decode(open(sys.argv[1], 'rb').read()).shape == (9_400, 9_400, 3)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], check=True, capture_output=True, text=True)
    assert int(done.stdout) <= 1_100  # MiB: 12 bytes per pixel


@pytest.mark.parametrize("data", [jpeg(1, 40, 40), png(1, 40, 40), encoded(noise(1, 40, 40), "WebP")])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_files_cut_short_are_refused(data: bytes, share: float) -> None:
    with pytest.raises(InputError):
        decode(data[: int(len(data) * share)])


def test_a_header_that_lies_about_the_size_is_refused() -> None:
    with pytest.raises(InputError):
        decode(png_that_says(13, 10))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"not an image at all", "first bytes"),
        (b"\x89PNG\r\n\x1a\n", "must be an image"),
        (b"\xff\xd8\xff", "must be an image"),
        (b"\xff\xd8\xff\xd9", "must be an image"),
        (b"\0\0\0\x1cftypheic", r"it is HEIF or a video; HEIF needs `pip install 'angulus\[heif\]'`"),
        (png_that_says(0, 5), "must be"),
        (b"RIFF\x04\0\0\0WEBPxxxx", "must be an image"),
    ],
)
def test_what_is_no_image(data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        decode(data, "that")


@pytest.mark.parametrize("kind", ["WebP", "GIF", "TIFF", "PNG"])
def test_several_frames_are_refused(kind: str) -> None:
    frames = [Image.fromarray(noise(seed)) for seed in range(2)]
    with pytest.raises(InputError, match=f"this {kind} has several frames"):
        decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))


def test_the_jpeg_of_a_phone_with_a_second_picture_is_one_jpeg() -> None:
    data = encoded(Image.fromarray(noise(1, 32, 32)), "MPO", save_all=True, append_images=[Image.fromarray(noise(2))])
    assert header(data) == Header("JPEG", 32, 32)
    assert np.array_equal(decode(data), by_pillow(data))


def test_tiff_and_gif() -> None:
    pixels = noise(3, 13, 7)
    assert np.array_equal(decode(encoded(pixels, "TIFF")), pixels)
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    assert np.array_equal(decode(encoded(deep, "TIFF"))[..., 0], np.arange(256).reshape(16, 16))
    grey = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (9, 1))
    assert np.array_equal(decode(encoded(grey, "GIF"))[..., 1], grey)
    with pytest.raises(InputError, match="it has 32; scale its values"):
        decode(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


def test_a_jpeg_that_lacks_its_end_is_read_only_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = jpeg(1, 40, 40)
    with pytest.raises(InputError, match=r"^a.jpg must be a whole JPEG; it is cut short .*--read-damaged"):
        decode(whole[:-2], "a.jpg")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    monkeypatch.setenv(limits.READ_DAMAGED, "1")
    with pytest.warns(UserWarning, match=r"^a.jpg is cut short"):
        assert np.array_equal(decode(whole[:-2], "a.jpg"), decode(whole))
    with pytest.warns(UserWarning, match="is cut short"):
        short = decode(whole[:-200])
    assert short.shape == (40, 40, 3)
    assert np.array_equal(short[:8], decode(whole)[:8])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 1}, {"subsampling": 2}])
@pytest.mark.parametrize("size", [(112, 112), (33, 17), (1, 1), (8, 301)])
def test_opencv_and_pillow_decode_a_jpeg_to_the_same_pixels(
    options: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2")
    files = [encoded(noise(quality, *size), "JPEG", quality=quality, **options) for quality in (10, 75, 100)]
    files.append(encoded(Image.fromarray(noise(5, *size)).convert("L"), "JPEG"))
    fast = [decode(data) for data in files]
    monkeypatch.setattr(decoding, "opencv", lambda: None)
    for data, pixels in zip(files, fast, strict=True):
        assert np.array_equal(decode(data), pixels)


def test_old_bmp_header() -> None:
    old = (
        b"BM"
        + struct.pack("<IHHI", 34, 0, 0, 26)
        + struct.pack("<IHHHH", 12, 2, 1, 1, 24)
        + bytes([1, 2, 3, 4, 5, 6, 0, 0])
    )
    assert decode(old).tolist() == [[[3, 2, 1], [6, 5, 4]]]


def test_real_photos(data_folder: Path) -> None:
    photos = [path for path in sorted((data_folder / "photos").iterdir()) if path.suffix in (".jpg", ".png", ".jpeg")]
    assert photos
    for path in photos:
        data = path.read_bytes()
        assert np.abs(decode(data).astype(int) - by_pillow(data)).mean() < 1


def test_a_plain_jpeg_is_read_as_with_pillows_look_at_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of the header changed once: the same pixels, or the same refusal, with the short way and without."""
    pytest.importorskip("cv2")
    whole, draw = jpeg(), np.random.default_rng(0)
    plain = decoding._is_plain_jpeg
    assert plain(whole) and not plain(whole[:-2]) and not plain(turned(noise(), 6))

    def result(data: bytes) -> Any:
        try:
            return decode(data).tolist()
        except InputError as error:
            return str(error)

    taken = 0
    for place in range(whole.index(b"\xff\xda")):
        changed = bytearray(whole)
        changed[place] = (changed[place] + int(draw.integers(1, 256))) % 256
        taken += plain(bytes(changed))
        short = result(bytes(changed))
        with monkeypatch.context() as without:
            without.setattr(decoding, "_is_plain_jpeg", lambda data: False)
            assert result(bytes(changed)) == short, f"byte {place}"
    assert taken > 100


def test_what_opencv_refuses_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # follows the limit up
    monkeypatch.setenv(limits.VARIABLE, "64G")
    data = bytearray(jpeg())
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = b"\xfd\xe8" * 2  # more pixels than OpenCV's own limit
    monkeypatch.setattr(decoding, "opened", lambda image, what: np.zeros((1, 1, 3), np.uint8))
    assert decoding._is_plain_jpeg(bytes(data)) and decode(bytes(data)).shape == (1, 1, 3)
