"""The picture pipeline without a web and without a queue: real files in, real files out."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from oncue.demo import decoding
from oncue.demo.decoding import BrokenImage, ImageProblem, TooManyPixels, UnknownFormat, inspect
from oncue.demo.images import FILTERS, ImageReport, Version, dominant_colours, process
from tests.demo import pictures

RED, LIME, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def version(report: ImageReport, stem: str) -> Version:
    return next(version for version in report.versions if version.file.split(".")[0] == stem)


def opened(folder: Path, report: ImageReport, stem: str) -> Image.Image:
    with Image.open(folder / version(report, stem).file) as picture:
        picture.load()
        return picture


def close(seen: object, expected: tuple[int, ...], tolerance: int = 40) -> bool:
    assert isinstance(seen, tuple)
    return all(abs(a - b) <= tolerance for a, b in zip(seen[:3], expected, strict=True))


def corners(picture: Image.Image) -> list[object]:
    picture = picture.convert("RGB")
    right, bottom = picture.width - 8, picture.height - 8
    return [picture.getpixel(at) for at in ((8, 8), (right, 8), (8, bottom), (right, bottom))]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright_whichever_way_the_camera_was_held(tmp_path: Path, orientation: int) -> None:
    source = pictures.photograph(tmp_path / "photo.jpg", orientation=orientation)
    report = process(source, tmp_path / "out")
    assert (report.width, report.height) == (900, 600)
    for stem in ("size-160", "size-800", "size-900"):
        seen = corners(opened(tmp_path / "out", report, stem))
        assert all(close(a, b) for a, b in zip(seen, (RED, LIME, BLUE, YELLOW), strict=True)), (stem, seen)


def test_sizes_are_never_larger_than_the_original(tmp_path: Path) -> None:
    report = process(pictures.photograph(tmp_path / "photo.jpg", width=500, height=250), tmp_path / "out")
    sizes = [(made.width, made.height) for made in report.versions if made.kind == "size"]
    assert sizes == [(160, 80), (320, 160), (500, 250)]
    assert all(max(made.width, made.height) <= 500 for made in report.versions)


def test_a_large_picture_gets_every_size_and_nothing_beyond(tmp_path: Path) -> None:
    report = process(pictures.photograph(tmp_path / "photo.jpg", width=2600, height=1300), tmp_path / "out")
    sizes = [(made.width, made.height) for made in report.versions if made.kind == "size"]
    assert sizes == [(160, 80), (320, 160), (800, 400), (1600, 800)]
    assert (report.width, report.height) == (2600, 1300)


def test_a_very_long_and_thin_picture_keeps_at_least_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (5000, 1), "navy").save(tmp_path / "line.png")
    report = process(tmp_path / "line.png", tmp_path / "out")
    assert next((made.width, made.height) for made in report.versions if made.kind == "size") == (160, 1)


def test_the_report_says_what_is_in_the_folder(tmp_path: Path) -> None:
    report = process(pictures.photograph(tmp_path / "photo.jpg"), tmp_path / "out")
    assert {made.file for made in report.versions} == {path.name for path in (tmp_path / "out").iterdir()}
    for made in report.versions:
        path = tmp_path / "out" / made.file
        with Image.open(path) as picture:
            assert (picture.format, *picture.size, path.stat().st_size) == (
                made.format,
                made.width,
                made.height,
                made.bytes,
            )
    assert report.bytes == (tmp_path / "photo.jpg").stat().st_size
    assert [made.label for made in report.versions if made.kind == "filter"] == [label for _, label in FILTERS]


@pytest.mark.parametrize("kind", ["photo.jpg", "disc.png", "disc.webp"])
def test_nothing_the_file_says_about_itself_reaches_its_versions(tmp_path: Path, kind: str) -> None:
    source = tmp_path / kind
    if kind == "photo.jpg":
        pictures.photograph(source)
    else:
        pictures.see_through(source, "PNG" if kind.endswith("png") else "WEBP")
    assert pictures.SECRET_PLACE.encode() in source.read_bytes()
    report = process(source, tmp_path / "out")
    for made in report.versions:
        data = (tmp_path / "out" / made.file).read_bytes()
        assert pictures.SECRET_PLACE.encode() not in data, made.file
        with Image.open(tmp_path / "out" / made.file) as picture:
            picture.load()
            assert not picture.getexif(), made.file
            assert not {"exif", "comment", "xmp", "icc_profile", "XML:com.adobe.xmp", "photoshop"} & set(picture.info)


def test_the_metadata_is_read_for_people_and_the_place_is_not_repeated(tmp_path: Path) -> None:
    report = process(pictures.photograph(tmp_path / "photo.jpg", orientation=6), tmp_path / "out")
    said = {detail.label: detail.value for detail in report.details}
    assert said["Camera maker"] == "Oakwood"
    assert said["Camera"] == "Field Camera 3"
    assert said["Exposure"] == "1/250 s"
    assert said["Aperture"] == "f/2.8"
    assert said["Sensitivity"] == "ISO 400"
    assert said["Focal length"] == "35 mm"
    assert said["Orientation"] == "turned left (6), corrected"
    assert said["Place (GPS)"] == "in the upload; removed from every version"
    assert "47" not in said["Place (GPS)"]


def test_hostile_metadata_becomes_one_short_line_of_plain_text(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A\x1b[31m\x07\nB" + "x" * 5000
    exif[0x0112] = 99
    exif.get_ifd(0x8769).update({0x829A: IFDRational(1, 0), 0x829D: IFDRational(0, 0), 0x8827: 7})
    pictures.scene(40, 30).save(tmp_path / "odd.jpg", exif=exif)
    said = {detail.label: detail.value for detail in process(tmp_path / "odd.jpg", tmp_path / "out").details}
    assert said["Camera maker"].startswith("A [31m Bxxx")
    assert len(said["Camera maker"]) <= 120
    assert not {"Orientation", "Exposure", "Aperture"} & set(said)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_does_not_stop_a_good_picture(tmp_path: Path) -> None:
    pictures.scene(40, 30).save(tmp_path / "odd.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x87\x69" * 40)
    report = process(tmp_path / "odd.jpg", tmp_path / "out")
    assert report.versions


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    report = process(pictures.cmyk(tmp_path / "print.jpg"), tmp_path / "out")
    assert report.mode == "CMYK"
    picture = opened(tmp_path / "out", report, "size-320")
    assert picture.mode == "RGB"
    assert all(close(a, b, 60) for a, b in zip(corners(picture), (RED, LIME, BLUE, YELLOW), strict=True))


def test_a_16_bit_grey_png_keeps_its_brightness(tmp_path: Path) -> None:
    report = process(pictures.grey_16_bit(tmp_path / "deep.png"), tmp_path / "out")
    assert report.mode.startswith("I;16")
    picture = opened(tmp_path / "out", report, "size-320")
    assert close(picture.getpixel((20, 20)), (64, 64, 64), 3)
    assert close(picture.getpixel((300, 20)), (191, 191, 191), 3)


def test_a_16_bit_colour_png_keeps_its_colours(tmp_path: Path) -> None:
    report = process(pictures.rgb_16_bit(tmp_path / "deep.png"), tmp_path / "out")
    assert close(opened(tmp_path / "out", report, "size-320").getpixel((20, 20)), (255, 128, 0), 3)


@pytest.mark.parametrize(
    ("mode", "fill", "grey"), [("I", 32768, 128), ("F", 0.5, 0), ("1", 1, 255), ("LA", (90, 255), 90)]
)
def test_unusual_modes_come_out_as_ordinary_pictures(
    tmp_path: Path, mode: str, fill: float | tuple[int, int], grey: int
) -> None:
    path = tmp_path / ("odd.png" if mode == "LA" else "odd.tif")
    Image.new(mode, (64, 48), fill).save(path)
    report = process(path, tmp_path / "out")
    picture = opened(tmp_path / "out", report, "size-64")
    assert picture.mode == "RGB"
    assert close(picture.getpixel((5, 5)), (grey, grey, grey), 3)


def test_transparency_is_kept_where_the_format_has_it_and_put_on_white_where_not(tmp_path: Path) -> None:
    report = process(pictures.see_through(tmp_path / "disc.png"), tmp_path / "out")
    for stem in ("size-320", "filter-sepia", "as-webp"):
        picture = opened(tmp_path / "out", report, stem)
        assert picture.mode == "RGBA", stem
        assert picture.getpixel((2, 2))[3] == 0  # type: ignore[index]
    flat = opened(tmp_path / "out", report, "as-jpeg")
    assert version(report, "as-jpeg").label == "JPEG on white"
    assert close(flat.getpixel((2, 2)), (255, 255, 255), 4)
    assert close(flat.getpixel((320, 200)), (128, 0, 160), 12)


def test_a_see_through_webp_stays_webp(tmp_path: Path) -> None:
    report = process(pictures.see_through(tmp_path / "disc.webp", "WEBP"), tmp_path / "out")
    assert version(report, "size-320").format == "WEBP"
    assert opened(tmp_path / "out", report, "size-320").mode == "RGBA"


def test_alpha_that_hides_nothing_is_dropped(tmp_path: Path) -> None:
    pictures.scene(300, 200).convert("RGBA").save(tmp_path / "solid.webp", lossless=True)
    report = process(tmp_path / "solid.webp", tmp_path / "out")
    assert version(report, "size-160").format == "JPEG"


def test_an_animation_is_shown_still_and_moving(tmp_path: Path) -> None:
    report = process(pictures.animation(tmp_path / "walk.gif"), tmp_path / "out")
    assert report.frames == 12
    with Image.open(tmp_path / "out" / "animation.webp") as moving:
        assert moving.n_frames == 12  # type: ignore[attr-defined]
        assert moving.size == (240, 160)
    still = opened(tmp_path / "out", report, "size-300")
    assert close(still.convert("RGB").getpixel((20, 100)), (255, 200, 0), 12)


def test_of_a_long_animation_some_frames_are_taken_at_the_same_pace(tmp_path: Path) -> None:
    report = process(pictures.animation(tmp_path / "walk.webp", frames=130, format="WEBP"), tmp_path / "out")
    assert report.frames == 130
    made = version(report, "animation")
    assert made.label == "Animated, 44 of 130 frames"
    with Image.open(tmp_path / "out" / made.file) as moving:
        moving.seek(1)
        moving.load()
        assert moving.info["duration"] == 240


def test_a_jpeg_with_a_second_picture_inside_is_a_still_jpeg(tmp_path: Path) -> None:
    report = process(pictures.two_in_one(tmp_path / "phone.jpg"), tmp_path / "out")
    assert (report.format, report.frames) == ("JPEG", 1)
    assert not [made for made in report.versions if made.kind == "animation"]


def test_the_main_colours_come_in_order_with_their_share() -> None:
    picture = Image.new("RGB", (100, 100), (200, 30, 40))
    picture.paste((20, 40, 220), (0, 0, 100, 30))
    first, second = dominant_colours(picture)[:2]
    assert close(tuple(bytes.fromhex(first.hex[1:])), (200, 30, 40), 6)
    assert close(tuple(bytes.fromhex(second.hex[1:])), (20, 40, 220), 6)
    assert first.share == pytest.approx(0.7, abs=0.03)
    assert second.share == pytest.approx(0.3, abs=0.03)


def test_transparent_parts_have_no_say_in_the_main_colours(tmp_path: Path) -> None:
    report = process(pictures.see_through(tmp_path / "disc.png"), tmp_path / "out")
    assert close(tuple(bytes.fromhex(report.colours[0].hex[1:])), (128, 0, 160), 8)
    assert report.colours[0].share > 0.9
    assert dominant_colours(Image.new("RGBA", (50, 50), (0, 0, 0, 0))) == []


def test_progress_goes_step_by_step_to_its_end(tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    process(pictures.photograph(tmp_path / "photo.jpg"), tmp_path / "out", lambda *step: steps.append(step))
    total = steps[0][1]
    assert [done for done, _, _ in steps] == list(range(total + 1))
    assert {all_steps for _, all_steps, _ in steps} == {total}
    assert steps[0][2] == "Reading the metadata"
    assert steps[-1][2] == "Done"


def test_a_second_run_over_the_same_folder_ends_as_the_first(tmp_path: Path) -> None:
    source = pictures.photograph(tmp_path / "photo.jpg")
    first = process(source, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert process(source, tmp_path / "out") == first
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_a_truncated_picture_is_said_to_be_cut_off(tmp_path: Path) -> None:
    source = pictures.truncated(tmp_path / "half.jpg")
    assert inspect(source).width == 900
    with pytest.raises(BrokenImage, match="cut off"):
        process(source, tmp_path / "out")


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.97])
def test_a_file_cut_anywhere_gives_one_clear_error_or_a_picture(tmp_path: Path, format: str, part: float) -> None:
    whole = tmp_path / "whole"
    Image.effect_noise((200, 150), 80).convert("RGB").save(whole, format)
    data = whole.read_bytes()
    (tmp_path / "cut").write_bytes(data[: int(len(data) * part)])
    said = ""
    try:
        report = process(tmp_path / "cut", tmp_path / "out")
    except ImageProblem as problem:
        said = str(problem)
    else:
        assert report.versions
    assert not said or said.endswith((".", "?"))
    assert str(tmp_path) not in said


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_bytes_anywhere_give_one_clear_error_or_a_picture(tmp_path: Path) -> None:
    ends = {"pictures": 0, "problems": 0}
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        whole = tmp_path / format
        pictures.scene(120, 80).save(whole, format)
        data = whole.read_bytes()
        for at in range(0, len(data), max(1, len(data) // 40)):
            damaged = bytearray(data)
            damaged[at] ^= 0xA5
            (tmp_path / "damaged").write_bytes(damaged)
            try:
                process(tmp_path / "damaged", tmp_path / "out")
                ends["pictures"] += 1
            except ImageProblem:
                ends["problems"] += 1
    print(f"damaged files: {ends}")
    assert ends["problems"] > 10


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "The file is empty"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\0\0\0\x18ftypheic", "a HEIC picture"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"\xff\xd8\xff", "the beginning of a JPEG, but damaged"),
        (bytes(range(256)), "something else"),
    ],
)
def test_a_file_that_is_no_picture_is_named_for_what_it_is(tmp_path: Path, head: bytes, words: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(head)
    with pytest.raises(UnknownFormat, match=words):
        inspect(tmp_path / "photo.jpg")


def test_a_text_renamed_jpg_is_seen_through(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormat, match="it looks like a text, whatever its name says"):
        inspect(pictures.text_named_jpg(tmp_path / "notes.jpg"))


def test_a_decompression_bomb_is_refused_by_its_head_without_being_decoded(tmp_path: Path) -> None:
    source = pictures.bomb(tmp_path / "bomb.png")
    assert source.stat().st_size < 1_000_000
    tracemalloc.start()
    try:
        for refused in (lambda: inspect(source), lambda: process(source, tmp_path / "out")):
            with pytest.raises(TooManyPixels, match=r"the limit (is|of) 50 megapixels"):
                refused()
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_the_limit_of_pixels_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 60 * 40)
    pictures.scene(60, 40).save(tmp_path / "fits.png")
    pictures.scene(61, 40).save(tmp_path / "large.png")
    assert inspect(tmp_path / "fits.png").width == 60
    with pytest.raises(TooManyPixels, match="61 × 40 pixels"):
        inspect(tmp_path / "large.png")


def test_a_missing_file_is_not_taken_for_a_bad_picture(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "gone.jpg")
