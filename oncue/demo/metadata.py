"""What a picture file says about itself, as labelled text for people.

Every value comes from a stranger's file: it is turned into short plain text here, and none of it is trusted, kept in
another form or copied into a derived file. A place (GPS) is reported as being there, and not repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base

__all__ = ["Detail", "read_details"]

LONGEST: Final = 120


@dataclass(frozen=True)
class Detail:
    """One thing a file says about itself."""

    label: str
    value: str


def read_details(image: Image.Image) -> list[Detail]:
    """Return what the file says: its form first, then its EXIF. Damaged EXIF is left out, never an error."""
    found = [Detail("Colour mode", _MODES.get(image.mode, image.mode))]
    if image.has_transparency_data:
        found.append(Detail("Transparency", "yes"))
    if image.info.get("icc_profile"):
        found.append(Detail("Colour profile", f"{_profile_name(image.info['icc_profile'])}, converted to sRGB"))
    try:
        exif = image.getexif()
        camera, photograph, place = dict(exif), dict(exif.get_ifd(IFD.Exif)), dict(exif.get_ifd(IFD.GPSInfo))
    except Exception:  # EXIF is a small file system of offsets, and Pillow raises whatever a wrong one leads to
        return [*found, Detail("EXIF", "damaged, left out")]
    for label, tag, words in _FIELDS:
        values: Mapping[int, Any] = photograph if tag in photograph else camera
        if tag in values and (text := _safely(words, values[tag])):
            found.append(Detail(label, text))
    if place:
        found.append(Detail("Place (GPS)", "in the upload; removed from every version"))
    return found


def _safely(words: Callable[[Any], str], value: Any) -> str:
    try:
        return _plain(words(value))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError, IndexError, KeyError):
        return ""  # a value of another type than its tag should have


def _plain(text: str) -> str:
    """Return one line of printable text, cut at `LONGEST`."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _number(value: Any) -> float:
    number = float(value[0] if isinstance(value, tuple) else value)
    if not math.isfinite(number):
        raise ValueError("a fraction with no value")
    return number


def _exposure(value: Any) -> str:
    seconds = _number(value)
    return f"1/{round(1 / seconds):,} s" if 0 < seconds < 0.3 else f"{seconds:g} s"


def _profile_name(profile: bytes) -> str:
    try:
        return _plain(ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(BytesIO(profile)))) or "unnamed"
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "damaged"


_MODES: Final = {
    "1": "1-bit black and white",
    "L": "8-bit grey",
    "LA": "8-bit grey with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "RGB": "8-bit RGB",
    "RGBA": "8-bit RGB with alpha",
    "CMYK": "8-bit CMYK",
    "YCbCr": "8-bit YCbCr",
    "LAB": "8-bit L*a*b*",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
    "I": "32-bit grey",
    "F": "32-bit floating point grey",
}
_ORIENTATIONS: Final = {
    1: "upright",
    2: "mirrored",
    3: "upside down",
    4: "upside down and mirrored",
    5: "turned left and mirrored",
    6: "turned left",
    7: "turned right and mirrored",
    8: "turned right",
}


def _orientation(value: Any) -> str:
    words = _ORIENTATIONS[int(value)]
    return words if value == 1 else f"{words} ({int(value)}), corrected"


_FIELDS: Final[tuple[tuple[str, int, Callable[[Any], str]], ...]] = (
    ("Camera maker", Base.Make, _text),
    ("Camera", Base.Model, _text),
    ("Lens", Base.LensModel, _text),
    ("Taken", Base.DateTimeOriginal, _text),
    ("Exposure", Base.ExposureTime, _exposure),
    ("Aperture", Base.FNumber, lambda value: f"f/{_number(value):g}"),
    ("Sensitivity", Base.ISOSpeedRatings, lambda value: f"ISO {_number(value):g}"),
    ("Focal length", Base.FocalLength, lambda value: f"{_number(value):g} mm"),
    ("Orientation", Base.Orientation, _orientation),
    ("Software", Base.Software, _text),
    ("Artist", Base.Artist, _text),
    ("Copyright", Base.Copyright, _text),
    ("Description", Base.ImageDescription, _text),
)
