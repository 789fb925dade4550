"""The picture pipeline: a file goes in, versions, metadata and colours come out.

Pure functions over Pillow and paths. It knows nothing of the web or of the queue: progress is a callback, so the same
code runs in a job, in a script and in a test. Opening files that may be anything is the business of `decoding`, what
they say about themselves that of `metadata`, and where they come from that of `uploads`.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image, ImageFilter, ImageOps

from oncue.demo.decoding import animation, count_frames, has_alpha, open_image, standard, summary, within
from oncue.demo.metadata import Detail, read_details

__all__ = ["Colour", "ImageReport", "Version", "dominant_colours", "encoded", "filtered", "process"]

SIZES: Final = (160, 320, 800, 1600)
"""The longer side, in pixels, of the versions made. None is ever larger than the original."""
FORMAT_SIZE: Final = 800
FILTER_SIZE: Final = 480
ANIMATION_SIZE: Final = 240
ANIMATION_FRAMES: Final = 60
COLOURS: Final = 6
NEAR: Final = 36
"""How far apart two colours must be (in RGB, each 0 to 255) to be shown as two."""
FILTERS: Final = (
    ("grey", "Greyscale"),
    ("sepia", "Sepia"),
    ("blur", "Blur"),
    ("sharpen", "Sharpen"),
    ("contours", "Contours"),
)
EXTENSIONS: Final = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}

Progress = Callable[[int, int, str], None]
"""Called with the steps done, the steps in all, and what is being done now (in the end `Done`)."""


@dataclass(frozen=True)
class Version:
    """One picture made from the upload, stored beside its siblings.

    Attributes:
        kind: `size`, `format`, `filter` or `animation`.
        file: its name in the job's folder.
        bytes: the size of that file.
    """

    kind: str
    label: str
    file: str
    format: str
    width: int
    height: int
    bytes: int


@dataclass(frozen=True)
class Colour:
    """A colour that much of the picture has, and its share of it (0 to 1)."""

    hex: str
    share: float


@dataclass(frozen=True)
class ImageReport:
    """What the pipeline found and made. Width and height are those of the picture held upright."""

    format: str
    mode: str
    width: int
    height: int
    frames: int
    transparent: bool
    bytes: int
    details: list[Detail]
    colours: list[Colour]
    versions: list[Version]


def process(source: Path, target: Path, progress: Progress = lambda done, total, message: None) -> ImageReport:
    """Make every version of the picture `source` in the folder `target`, which may exist. Raises `ImageProblem`."""
    target.mkdir(parents=True, exist_ok=True)
    with open_image(source) as image:
        work = Work(image, source, target)
        steps = work.plan()
        for done, (message, step) in enumerate(steps):
            progress(done, len(steps), message)
            step()
        progress(len(steps), len(steps), "Done")
        return work.report()


@dataclass
class Work:
    """One picture on its way through the steps of `plan`, which run in order and fill the fields below."""

    image: Image.Image
    source: Path
    target: Path
    base: Image.Image = field(init=False)
    """The picture as `standard` makes it; every version is made from it."""
    details: list[Detail] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.summary = summary(self.image)
        self.frames = count_frames(self.image)

    def plan(self) -> list[tuple[str, Callable[[], None]]]:
        """Return the steps, each with what it does in words."""
        longest = max(self.summary.width, self.summary.height)
        # A picture between two sizes also gets a version as large as itself.
        sizes = [size for size in SIZES if size < longest] + ([longest] if longest <= SIZES[-1] else [])
        return [
            ("Reading the metadata", self.read_metadata),
            ("Decoding, turning upright, converting to sRGB", self.decode),
            *((f"Scaling to {size} pixels", partial(self.scale, size)) for size in sizes),
            ("Writing other formats", self.convert),
            *((f"Filter: {label.lower()}", partial(self.apply, name, label)) for name, label in FILTERS),
            ("Finding the main colours", self.find_colours),
            *([("Scaling the animation", self.animate)] if self.frames > 1 else []),
        ]

    def read_metadata(self) -> None:
        self.details = read_details(self.image)

    def decode(self) -> None:
        self.base = standard(self.image, size=SIZES[-1])

    def scale(self, size: int) -> None:
        self.save("size", f"{size} px", f"size-{size}", within(self.base, size), self.home_format())

    def convert(self) -> None:
        picture = within(self.base, FORMAT_SIZE)
        for format, label in (("WEBP", "WebP"), ("JPEG", "JPEG"), ("PNG", "PNG")):
            if format != self.home_format():
                ground = " on white" if format == "JPEG" and has_alpha(picture) else ""
                self.save("format", label + ground, f"as-{label.lower()}", picture, format)

    def apply(self, name: str, label: str) -> None:
        picture = filtered(within(self.base, FILTER_SIZE), name)
        self.save("filter", label, f"filter-{name}", picture, self.home_format())

    def find_colours(self) -> None:
        self.colours = dominant_colours(self.base)

    def animate(self) -> None:
        frames, durations = animation(self.image, size=ANIMATION_SIZE, frames=ANIMATION_FRAMES)
        buffer = BytesIO()
        first, *others = frames
        first.save(buffer, "WEBP", save_all=True, append_images=others, duration=durations, loop=0, quality=70)
        label = "Animated" if len(frames) == self.frames else f"Animated, {len(frames)} of {self.frames} frames"
        self.store("animation", label, "animation", buffer.getvalue(), first.size, "WEBP")

    def home_format(self) -> str:
        """Return the format for most versions: JPEG for photographs, else one that keeps edges and transparency."""
        if self.summary.format in ("PNG", "GIF", "BMP"):
            return "PNG"
        if has_alpha(self.base):
            return "WEBP" if self.summary.format == "WEBP" else "PNG"
        return "JPEG"

    def save(self, kind: str, label: str, stem: str, picture: Image.Image, format: str) -> None:
        self.store(kind, label, stem, encoded(picture, format), picture.size, format)

    def store(self, kind: str, label: str, stem: str, data: bytes, size: tuple[int, int], format: str) -> None:
        path = self.target / f"{stem}.{EXTENSIONS[format]}"
        # A job may run again after a crash, and a page may be looking: a reader sees all of a file or nothing.
        part = path.with_name(f".{path.name}.{time.monotonic_ns()}")
        part.write_bytes(data)
        os.replace(part, path)
        self.versions.append(Version(kind, label, path.name, format, *size, len(data)))

    def report(self) -> ImageReport:
        width, height = self.summary.width, self.summary.height
        if (self.base.width > self.base.height) != (width > height) and self.base.width != self.base.height:
            width, height = height, width
        return ImageReport(
            format=self.summary.format,
            mode=self.summary.mode,
            width=width,
            height=height,
            frames=self.frames,
            transparent=has_alpha(self.base),
            bytes=self.source.stat().st_size,
            details=self.details,
            colours=self.colours,
            versions=self.versions,
        )


def filtered(picture: Image.Image, name: str) -> Image.Image:
    """Return the picture through one of `FILTERS`; what was transparent stays so."""
    colours = picture.convert("RGB")
    if name == "grey":
        result = ImageOps.grayscale(colours).convert("RGB")
    elif name == "sepia":
        result = ImageOps.colorize(ImageOps.grayscale(colours), "#20130a", "#fff4dc", mid="#a9825a")
    elif name == "blur":
        result = colours.filter(ImageFilter.GaussianBlur(max(2, max(picture.size) / 80)))
    elif name == "sharpen":
        result = colours.filter(ImageFilter.UnsharpMask(radius=2, percent=180, threshold=2))
    elif name == "contours":
        result = ImageOps.invert(ImageOps.grayscale(colours).filter(ImageFilter.FIND_EDGES)).convert("RGB")
    else:
        raise ValueError(f"no filter {name!r}; one of {', '.join(known for known, _ in FILTERS)}")
    if has_alpha(picture):
        result.putalpha(picture.getchannel("A"))
    return result


def encoded(picture: Image.Image, format: str) -> bytes:
    """Return the picture as a file of `format`, without any metadata; JPEG puts transparency on white."""
    buffer = BytesIO()
    if format == "JPEG":
        if has_alpha(picture):
            ground = Image.new("RGB", picture.size, "white")
            ground.paste(picture, mask=picture.getchannel("A"))
            picture = ground
        picture.save(buffer, format, quality=85, optimize=True, progressive=True)
    elif format == "WEBP":
        picture.save(buffer, format, quality=80)
    else:
        picture.save(buffer, format)
    return buffer.getvalue()


def dominant_colours(picture: Image.Image) -> list[Colour]:
    """Return the main colours of an RGB or RGBA picture, the most frequent first; transparent parts do not count."""
    small = within(picture, 128)
    if has_alpha(small):
        seen = b"".join(bytes(pixel[:3]) for pixel in struct.iter_unpack("4B", small.tobytes()) if pixel[3] >= 128)
        if not seen:
            return []
        small = Image.frombytes("RGB", (len(seen) // 3, 1), seen)
    reduced = small.quantize(2 * COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=2)
    palette = reduced.getpalette() or []
    found: list[tuple[tuple[int, ...], int]] = []
    for count, index in sorted(reduced.getcolors() or [], reverse=True):
        assert isinstance(index, int)
        colour = tuple(palette[3 * index : 3 * index + 3])
        # Two shades that nobody would call two colours count as the more frequent one.
        near = next((at for at, (known, _) in enumerate(found) if math.dist(known, colour) < NEAR), None)
        if near is None:
            found.append((colour, count))
        else:
            found[near] = (found[near][0], found[near][1] + count)
    pixels = small.width * small.height
    colours = [Colour("#" + bytes(colour).hex(), round(count / pixels, 4)) for colour, count in found]
    colours.sort(key=lambda colour: -colour.share)
    return [colour for colour in colours if colour.share >= 0.01][:COLOURS]
