"""Opening picture files safely: what is refused and why, and how the rest becomes plain 8-bit sRGB.

Pillow's own errors end here: whatever is wrong with a file comes out as an `ImageProblem`, whose message is meant for
whoever sent it. What is then made of a picture is the business of `images`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, TypeVar

from PIL import Image, ImageCms, UnidentifiedImageError

__all__ = [
    "FORMAT_NAMES",
    "MAX_PIXELS",
    "BrokenImage",
    "ImageProblem",
    "Summary",
    "TooManyPixels",
    "UnknownFormat",
    "animation",
    "count_frames",
    "has_alpha",
    "inspect",
    "open_image",
    "standard",
    "summary",
    "within",
]

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
FORMAT_NAMES: Final = "JPEG, PNG, WebP, GIF, BMP or TIFF"
MAX_PIXELS: Final = 50_000_000
ANIMATION_PIXELS: Final = 400_000_000
"""How much of a long animation is decoded, in pixels of all its frames together."""

Result = TypeVar("Result")


class ImageProblem(Exception):
    """The file cannot be used; the message tells its owner why, in a sentence."""


class UnknownFormat(ImageProblem):
    """The file is no picture, or one of a format that is not read here."""


class TooManyPixels(ImageProblem):
    """The picture would take more memory than it may, however small its file is."""


class BrokenImage(ImageProblem):
    """The file begins as a picture, but it cannot be read to its end."""


@dataclass(frozen=True)
class Summary:
    """What the head of a picture file says; nothing of it has been decoded. A still picture has one frame."""

    format: str
    mode: str
    width: int
    height: int


def inspect(source: Path) -> Summary:
    """Read the head of a picture file, without decoding it. Raises `ImageProblem`."""
    with open_image(source) as image:
        return summary(image)


def summary(image: Image.Image) -> Summary:
    """Return what the head of an opened picture says."""
    # A JPEG with a second picture inside (many telephones write them) is a JPEG to everybody else.
    format = "JPEG" if image.format == "MPO" else str(image.format)
    return Summary(format, image.mode, image.width, image.height)


def open_image(source: Path) -> Image.Image:
    """Open a picture lazily, refusing what is no picture and what would be too large to decode."""
    try:
        image = Image.open(source, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # a warning that was made an error
        raise TooManyPixels(_too_many(None)) from None
    except UnidentifiedImageError:
        raise UnknownFormat(_not_a_picture(source)) from None
    except OSError as error:
        if error.errno is not None:  # of the file system, not of the picture
            raise
        raise BrokenImage(_broken(error)) from None
    except _DECODER_ERRORS as error:
        raise BrokenImage(_broken(error)) from None
    if image.width * image.height > MAX_PIXELS:
        size = image.size
        image.close()
        raise TooManyPixels(_too_many(size))
    return image


_DECODER_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise for files that are not as they should be."""


def _guarded(read: Callable[[], Result]) -> Result:
    """Call something that decodes, and say what is wrong with the file if it cannot."""
    try:
        return read()
    except Image.DecompressionBombError:
        raise TooManyPixels(_too_many(None)) from None
    except _DECODER_ERRORS as error:
        raise BrokenImage(_broken(error)) from error


def _too_many(size: tuple[int, int] | None) -> str:
    limit = f"{MAX_PIXELS // 1_000_000} megapixels"
    if size is None:
        return f"The picture has far more pixels than the limit of {limit}; it was not decoded."
    width, height = size
    return (
        f"The picture claims {width:,} × {height:,} pixels ({width * height / 1e6:,.0f} megapixels), "
        f"and the limit is {limit}; it was not decoded."
    )


def _broken(error: Exception) -> str:
    text = str(error)
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "The picture is cut off: its file ends before the picture does. Was it copied completely?"
    return f"The picture is damaged and cannot be decoded ({text or type(error).__name__})."


_SIGNATURES: Final = (
    (b"%PDF", 0, "a PDF document"),
    (b"PK\x03\x04", 0, "a ZIP archive or an office document"),
    (b"ftypheic", 4, "a HEIC picture"),
    (b"ftypmif1", 4, "a HEIF picture"),
    (b"ftypavif", 4, "an AVIF picture"),
    (b"ftyp", 4, "a video"),
    (b"\xff\xd8", 0, "the beginning of a JPEG, but damaged"),
    (b"\x89PNG", 0, "the beginning of a PNG, but damaged"),
    (b"GIF8", 0, "the beginning of a GIF, but damaged"),
    (b"RIFF", 0, "the beginning of a WebP or another RIFF file, but damaged"),
)


def _not_a_picture(source: Path) -> str:
    with source.open("rb") as file:
        head = file.read(512)
    if not head:
        return "The file is empty."
    what = next((name for mark, at, name in _SIGNATURES if head[at : at + len(mark)] == mark), None)
    if what is None and b"<svg" in head.lower():
        what = "an SVG drawing"
    if what is None and _is_text(head):
        what = "a text, whatever its name says"
    return f"This is no {FORMAT_NAMES} picture: it looks like {what or 'something else'}."


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not merely a character cut by the end of `head`
            return False
        text = head[: error.start].decode()
    return not any(ord(letter) < 32 and letter not in "\t\r\n\f" for letter in text)


def count_frames(image: Image.Image) -> int:
    """Return how many frames an animation has; 1 for a still picture. Raises `ImageProblem`."""
    # A second picture in a JPEG is the camera's own preview, and the pages of a TIFF are no animation.
    if image.format not in ("GIF", "WEBP", "PNG"):
        return 1
    return int(_guarded(lambda: getattr(image, "n_frames", 1)))


def has_alpha(picture: Image.Image) -> bool:
    """Return whether a picture made by `standard` has transparent parts."""
    return picture.mode == "RGBA"


def within(picture: Image.Image, size: int) -> Image.Image:
    """Return a copy that fits a square of `size`, never larger than the original."""
    longest = max(picture.size)
    if longest <= size:
        return picture.copy()
    width, height = (max(1, round(side * size / longest)) for side in picture.size)
    # Halving first where the picture is much larger is several times quicker and looks the same.
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)


def standard(image: Image.Image, *, size: int) -> Image.Image:
    """Decode a picture: upright, 8-bit RGB or (where something is transparent) RGBA, within a square of `size`.

    Nothing that the file says about itself is left on it. Raises `ImageProblem`.
    """
    # A JPEG can be decoded at a half, a quarter or an eighth of its size: quicker, and far less memory.
    image.draft(None, (size * 3 // 2, size * 3 // 2))
    _guarded(image.load)
    return _guarded(lambda: _standard(image, size))


def _standard(image: Image.Image, size: int) -> Image.Image:
    orientation = image.getexif().get(0x0112, 1)
    profile = image.info.get("icc_profile")
    picture = _eight_bit(image)
    picture = within(picture, size)
    turn = _TURNS.get(orientation)
    if turn is not None:
        picture = picture.transpose(turn)
    picture = _srgb(picture, profile)
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema()[0] == 255:
        picture = picture.convert("RGB")
    # Nothing the file said about itself goes into its versions: not its place, its comment nor its profile.
    picture.info.clear()
    return picture


_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return the picture in a mode that can be scaled: L, RGB, RGBA or CMYK, each 8 bits a channel."""
    if image.mode.startswith(("I;16", "I", "F")):
        low, high = image.getextrema()
        assert isinstance(low, int | float)
        assert isinstance(high, int | float)
        if image.mode.startswith("I;16") or (low >= 0 and 255 < high <= 65535):
            low, high = 0, 65535
        factor = 255 / ((high - low) or 1)
        wide = image.convert("F") if image.mode == "F" else image.convert("I").convert("F")
        return wide.point(lambda value: value * factor + -low * factor).convert("L")
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Return the picture in RGB or RGBA, through its own colour profile where it has a usable one."""
    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    if profile:
        try:
            given = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, given, ImageCms.createProfile("sRGB"), outputMode=mode)
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a damaged profile, or one for another kind of picture: better plain colours than none
    return picture if picture.mode == mode else picture.convert(mode)


def animation(image: Image.Image, *, size: int, frames: int) -> tuple[list[Image.Image], list[int]]:
    """Return at most `frames` frames of an animation, evenly spread, and for how many milliseconds each is shown.

    Of a very long one only the beginning is decoded. Raises `ImageProblem`.
    """
    return _guarded(lambda: _animation(image, size, frames))


def _animation(image: Image.Image, size: int, frames: int) -> tuple[list[Image.Image], list[int]]:
    reachable = max(1, min(count_frames(image), ANIMATION_PIXELS // (image.width * image.height)))
    stride = -(-reachable // frames)
    pictures: list[Image.Image] = []
    durations: list[int] = []
    for index in range(reachable):
        image.seek(index)
        image.load()  # a WebP knows a frame's duration only then
        duration = int(image.info.get("duration", 100) or 100)
        if index % stride:
            durations[-1] += duration
        else:
            frame = within(image.convert("RGBA"), size)
            frame.info.clear()
            pictures.append(frame)
            durations.append(duration)
    return pictures, durations
