"""Real picture files of the kinds that people send, made on the spot; and files that only look like pictures."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image, ImageCms, ImageDraw
from PIL.ExifTags import GPS, IFD, Base
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

SECRET_PLACE = "Hidden Valley 12"
"""A text put into every corner of a file that should not reach what is made from it."""


def scene(width: int = 900, height: int = 600) -> Image.Image:
    """Return a picture whose top left quarter is red, top right green, bottom left blue and bottom right yellow."""
    picture = Image.new("RGB", (width, height), "red")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((width // 2, 0, width, height // 2), fill="lime")
    draw.rectangle((0, height // 2, width // 2, height), fill="blue")
    draw.rectangle((width // 2, height // 2, width, height), fill="yellow")
    return picture


def photograph(path: Path, *, orientation: int = 1, width: int = 900, height: int = 600) -> Path:
    """Write a JPEG as a camera does: turned as `orientation` says, with EXIF, a place, a comment and XMP."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    picture = scene(width, height)
    if orientation in undo:
        picture = picture.transpose(undo[orientation])
    exif = Image.Exif()
    exif[Base.Make] = "Oakwood"
    exif[Base.Model] = "Field Camera 3"
    exif[Base.Orientation] = orientation
    exif[Base.ImageDescription] = f"taken at {SECRET_PLACE}"
    exif.get_ifd(IFD.Exif).update(
        {
            Base.ExposureTime: IFDRational(1, 250),
            Base.FNumber: IFDRational(28, 10),
            Base.ISOSpeedRatings: 400,
            Base.FocalLength: IFDRational(35),
        }
    )
    exif.get_ifd(IFD.GPSInfo).update(
        {GPS.GPSLatitudeRef: "N", GPS.GPSLatitude: (47.0, 22.0, 8.0), GPS.GPSAreaInformation: SECRET_PLACE}
    )
    xmp = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{SECRET_PLACE}</x:xmpmeta>".encode()
    picture.save(path, "JPEG", quality=92, exif=exif, comment=SECRET_PLACE.encode(), xmp=xmp, icc_profile=srgb())
    return path


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cmyk(path: Path) -> Path:
    scene().convert("CMYK").save(path, "JPEG", quality=92)
    return path


def grey_16_bit(path: Path) -> Path:
    """Write a PNG whose left half is at a quarter of full white and whose right half is at three quarters."""
    values = [16384] * 300 + [49152] * 300
    picture = Image.frombytes("I;16", (600, 400), struct.pack("<600H", *values) * 400)
    picture.save(path, "PNG")
    return path


def rgb_16_bit(path: Path) -> Path:
    """Write a PNG of 16 bits a channel, which Pillow itself cannot write: 400 by 300, orange."""
    row = b"\0" + struct.pack(">3H", 65535, 32768, 0) * 400
    path.write_bytes(png(400, 300, depth=16, colour=2, rows=iter([row] * 300)))
    return path


def see_through(path: Path, format: str = "PNG") -> Path:
    """Write a picture of 640 by 400 with a purple disc on nothing, and texts about the place."""
    picture = Image.new("RGBA", (640, 400), (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((170, 50, 470, 350), fill=(128, 0, 160, 255))
    if format == "PNG":
        notes = PngInfo()
        notes.add_text("Comment", SECRET_PLACE)
        notes.add_itxt("XML:com.adobe.xmp", SECRET_PLACE)
        picture.save(path, "PNG", pnginfo=notes)
    else:
        picture.save(path, format, lossless=True, xmp=SECRET_PLACE.encode())
    return path


def animation(path: Path, *, frames: int = 12, format: str = "GIF") -> Path:
    """Write an animation of a square that walks to the right on dark blue."""
    pictures = []
    for index in range(frames):
        picture = Image.new("RGB", (300, 200), (10, 10, 90))
        ImageDraw.Draw(picture).rectangle((index * 2, 80, index * 2 + 30, 120), fill=(255, 200, 0))
        pictures.append(picture)
    pictures[0].save(path, format, save_all=True, append_images=pictures[1:], duration=80, loop=0)
    return path


def two_in_one(path: Path) -> Path:
    """Write a JPEG with a second picture behind the first, as telephones do."""
    scene(500, 400).save(path, "MPO", save_all=True, append_images=[scene(50, 40)])
    return path


def truncated(path: Path) -> Path:
    """Write a JPEG that was not copied to its end."""
    data = photograph(path).read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    return path


def text_named_jpg(path: Path) -> Path:
    path.write_text("Dear diary,\ntoday I renamed a text. Größe: 3 €.\n" * 40)
    return path


def bomb(path: Path) -> Path:
    """Write a PNG that is small on the disk and 60,000 pixels wide and high: 3.6 gigapixels."""
    path.write_bytes(_bomb())
    return path


@cache
def _bomb() -> bytes:
    row = bytes(1 + 60_000 // 8)
    return png(60_000, 60_000, depth=1, colour=0, rows=(row for _ in range(60_000)))


def png(width: int, height: int, *, depth: int, colour: int, rows: Iterator[bytes]) -> bytes:
    """Return a PNG made by hand from its rows, each with its filter byte."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for row in rows) + packer.flush()
    head = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
