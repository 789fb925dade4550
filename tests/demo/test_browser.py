"""The demo for people: Chromium clicks, types, uploads and watches."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from oncue.demo.tasks import digits_of_pi
from oncue.demo.uploads import MAX_UPLOAD
from tests.demo import pictures
from tests.demo.conftest import DemoServer, Watched, until
from tests.demo.test_api import await_idle

pytestmark = pytest.mark.browser

PAGES = ("/", "/images", "/retry", "/stream", "/not-there")


def choose(page: Page, path: Path) -> None:
    page.goto("/images")
    page.get_by_label("Choose a picture").set_input_files(path)


def test_a_hundred_tasks_are_started_and_fill_the_table_live(page: Page) -> None:
    page.goto("/")
    page.get_by_label("How many tasks?", exact=True).fill("100")
    page.get_by_role("button", name="Start the tasks").click()
    rows = page.locator("#rows tr")
    expect(rows).to_have_count(100)
    badges = page.locator("#rows .badge")
    seen_counts = set()
    seen_statuses = set()

    def look() -> bool:
        seen_counts.add(int(page.locator("#bar").get_attribute("value") or 0))
        seen_statuses.update(badges.all_inner_texts())
        return max(seen_counts) == 100

    until(look, "the progress bar is at 100", within=60)
    assert seen_statuses == {"queued", "in_progress", "complete"}
    assert len(seen_counts) > 5, "the bar has moved in steps"
    expect(page.locator("#summary")).to_have_text("100 of 100 complete")
    expect(page.locator("#rows .badge[data-status=complete]")).to_have_count(100)
    for result in page.locator("#rows .result").all_inner_texts():
        assert re.fullmatch(r"[\d,]+ = [\d,⁰¹²³⁴⁵⁶⁷⁸⁹]+( × [\d,⁰¹²³⁴⁵⁶⁷⁸⁹]+)*", result)


def test_the_table_does_not_move_while_results_come_in(page: Page) -> None:
    page.goto("/")
    page.get_by_label("How many tasks?", exact=True).fill("30")
    page.get_by_role("button", name="Start the tasks").click()
    last = page.locator("#rows tr").last
    expect(page.locator("#rows tr")).to_have_count(30)
    before = last.bounding_box()
    expect(page.locator("#summary")).to_have_text("30 of 30 complete", timeout=30_000)
    assert last.bounding_box() == before


def test_the_slider_and_the_number_agree(page: Page) -> None:
    page.goto("/")
    slider = page.get_by_label("How many tasks, as a slider")
    number = page.get_by_label("How many tasks?", exact=True)
    slider.focus()
    page.keyboard.press("Home")
    expect(number).to_have_value("1")
    page.keyboard.press("ArrowRight")
    expect(number).to_have_value("2")
    number.fill("77")
    expect(slider).to_have_value("77")


def test_a_number_outside_the_bounds_is_not_sent(page: Page) -> None:
    page.goto("/")
    for number in ("0", "101", ""):
        page.get_by_label("How many tasks?", exact=True).fill(number)
        page.get_by_role("button", name="Start the tasks").click()
        assert page.evaluate("document.querySelector('#count').validity.valid") is False
        expect(page.locator("#rows tr")).to_have_count(0)


def test_a_batch_has_an_address_that_can_be_loaded_again_and_come_back_to(page: Page) -> None:
    page.goto("/")
    page.get_by_label("How many tasks?", exact=True).fill("3")
    page.get_by_role("button", name="Start the tasks").click()
    expect(page).to_have_url(re.compile(r"/\?batch="))
    expect(page.locator("#summary")).to_have_text("3 of 3 complete")
    page.reload()
    expect(page.locator("#rows tr")).to_have_count(3)
    expect(page.locator("#summary")).to_have_text("3 of 3 complete")
    first = page.url
    page.get_by_role("button", name="Start the tasks").click()
    expect(page).not_to_have_url(first)
    expect(page.locator("#summary")).to_have_text("3 of 3 complete")
    page.goto(first)
    expect(page.locator("#summary")).to_have_text("3 of 3 complete")


def test_a_page_that_is_open_goes_on_when_the_server_was_killed_and_started_again(
    page: Page, demo: DemoServer, watched: Watched
) -> None:
    watched.expected = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET")
    page.goto("/")
    page.get_by_label("How many tasks?", exact=True).fill("60")
    page.get_by_role("button", name="Start the tasks").click()
    expect(page.locator("#rows .badge[data-status=complete]").nth(4)).to_be_visible()
    demo.kill()
    expect(page.locator("#connection")).to_be_visible()
    demo.start()
    expect(page.locator("#connection")).to_be_hidden(timeout=30_000)
    expect(page.locator("#summary")).to_have_text("60 of 60 complete", timeout=60_000)


@pytest.mark.parametrize(
    ("kind", "size", "facts"),
    [
        ("turned", "900 × 600 px", ["turned left (6), corrected", "Oakwood", "in the upload; removed"]),
        ("cmyk", "900 × 600 px", ["8-bit CMYK"]),
        ("grey-16", "600 × 400 px", ["16-bit grey"]),
        ("rgb-16", "400 × 300 px", ["8-bit RGB"]),
        ("alpha", "640 × 400 px", ["8-bit RGB with alpha", "Transparency"]),
        ("webp", "640 × 400 px", ["WEBP"]),
        ("gif", "300 × 200 px", ["GIF", "Frames"]),
    ],
)
def test_a_picture_of_each_kind_is_uploaded_and_its_versions_are_seen(
    page: Page, tmp_path: Path, kind: str, size: str, facts: list[str]
) -> None:
    path = tmp_path / f"my {kind}.picture"
    match kind:
        case "turned":
            pictures.photograph(path, orientation=6)
        case "cmyk":
            pictures.cmyk(path)
        case "grey-16":
            pictures.grey_16_bit(path)
        case "rgb-16":
            pictures.rgb_16_bit(path)
        case "alpha":
            pictures.see_through(path)
        case "webp":
            pictures.see_through(path, "WEBP")
        case "gif":
            pictures.animation(path)
    choose(page, path)
    expect(page.locator("#preview")).to_be_visible()
    page.get_by_role("button", name="Upload the picture").click()
    expect(page).to_have_url(re.compile(r"/images/[0-9a-z]{26}$"))
    expect(page.get_by_role("heading", level=1)).to_have_text(path.name)
    expect(page.get_by_role("heading", name="Filters")).to_be_visible()
    table = page.get_by_role("table", name="Metadata")
    expect(table).to_contain_text(size)
    for fact in facts:
        expect(table).to_contain_text(fact)
    for picture in page.locator("main img").all():
        picture.scroll_into_view_if_needed()
        until(lambda picture=picture: picture.evaluate("one => one.complete"), "the picture is loaded")  # type: ignore[misc]
        assert picture.evaluate("one => one.naturalWidth") > 0
    assert page.locator("main img").count() >= 9
    assert (page.get_by_text("Animated").count() == 1) == (kind == "gif")
    swatches = page.locator(".swatches li")
    assert re.match(r"#[0-9a-f]{6}", swatches.first.inner_text())


def test_the_steps_of_a_picture_are_seen_as_they_are_done(page: Page, tmp_path: Path) -> None:
    page.add_init_script(
        """addEventListener("DOMContentLoaded", () => {
          window.seen = { steps: [], values: [], lines: 0 };
          new MutationObserver(() => {
            const step = document.getElementById("step")?.textContent;
            if (step && step !== seen.steps.at(-1)) seen.steps.push(step);
            const value = document.getElementById("bar")?.value;
            if (value !== undefined && value !== seen.values.at(-1)) seen.values.push(value);
            seen.lines = Math.max(seen.lines, document.querySelectorAll("#log li").length);
          }).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
        });"""
    )
    choose(page, pictures.photograph(tmp_path / "large.jpg", width=6400, height=6000))
    page.get_by_role("button", name="Upload the picture").click()
    expect(page.get_by_role("heading", name="Sizes")).to_be_visible()
    seen = page.evaluate("window.seen")
    assert len(seen["steps"]) >= 3
    assert seen["values"] == sorted(seen["values"])
    assert len(seen["values"]) >= 3
    assert seen["lines"] >= 3


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", "it looks like a text, whatever its name says"),
        ("bomb", "the limit of 50 megapixels|limit is 50 megapixels"),
        ("large", "larger than the limit: 10.0 MB, and at most 10 MB are taken"),
        ("none", "Choose a picture first"),
        ("half", "The picture is cut off: its file ends before the picture does"),
    ],
)
def test_each_bad_input_shows_a_clear_message_and_leaves_no_job_stuck(
    page: Page, demo: DemoServer, tmp_path: Path, watched: Watched, kind: str, words: str
) -> None:
    watched.expected = ("the server responded with a status of 4",)
    path = tmp_path / "photo.jpg"
    page.goto("/images")
    match kind:
        case "text":
            pictures.text_named_jpg(path)
        case "bomb":
            pictures.bomb(path)
        case "large":
            path.write_bytes(b"\xff\xd8\xff" * (MAX_UPLOAD // 3 + 1))
        case "half":
            pictures.truncated(path)
    if kind != "none":
        choose(page, path)
    page.get_by_role("button", name="Upload the picture").click()
    place = page.locator(".reason" if kind == "half" else "#problem")
    expect(place).to_be_visible()
    expect(place).to_have_text(re.compile(words))
    if kind != "half":
        expect(page.get_by_role("button", name="Upload the picture")).to_be_enabled()
    await_idle(demo)
    # The next picture is taken as if nothing had been.
    choose(page, pictures.cmyk(tmp_path / "good.jpg"))
    page.get_by_role("button", name="Upload the picture").click()
    expect(page.get_by_role("heading", name="Sizes")).to_be_visible()


def test_without_javascript_the_server_itself_refuses_what_is_too_large(
    browser: Browser, demo: DemoServer, tmp_path: Path
) -> None:
    context = browser.new_context(base_url=demo.url, java_script_enabled=False)
    page = context.new_page()
    for size in (MAX_UPLOAD + 1, 30_000_000):
        path = tmp_path / "large.jpg"
        path.write_bytes(b"\xff\xd8\xff" + bytes(size))
        choose(page, path)
        page.get_by_role("button", name="Upload the picture").click()
        expect(page.locator("#problem")).to_have_text("The file is larger than the limit of 10 MB.")
    context.close()


def test_every_page_works_without_javascript(browser: Browser, demo: DemoServer, tmp_path: Path) -> None:
    context = browser.new_context(base_url=demo.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/")
    page.get_by_label("How many tasks?", exact=True).fill("4")
    page.get_by_role("button", name="Start the tasks").click()
    expect(page.locator("#summary")).to_have_text("4 of 4 complete", timeout=20_000)
    choose(page, pictures.photograph(tmp_path / "photo.jpg"))
    page.get_by_role("button", name="Upload the picture").click()
    expect(page.get_by_role("heading", name="Sizes")).to_be_visible(timeout=20_000)
    page.goto("/retry")
    page.get_by_role("button", name="Start the job").click()
    expect(page.get_by_text("answered at the third call")).to_be_visible(timeout=30_000)
    page.goto("/stream")
    page.get_by_label("How many digits?").fill("50")
    page.get_by_role("button", name="Start the job").click()
    expect(page.locator("#groups > span")).to_have_count(5, timeout=20_000)
    context.close()


def test_the_job_that_fails_twice_is_seen_failing_waiting_and_working(page: Page) -> None:
    page.goto("/retry")
    page.get_by_role("button", name="Start the job").click()
    state = page.locator("#state")
    expect(state.get_by_text("ConnectionError: the weather service did not answer (call 1)")).to_be_visible()
    expect(state.locator(".badge")).to_have_text("retrying")
    expect(state.get_by_text(re.compile(r"Next attempt in \d\.\d s\."))).to_be_visible()
    expect(state.get_by_text("ConnectionError: the weather service did not answer (call 2)")).to_be_visible()
    expect(state.get_by_text("The weather service answered at the third call")).to_be_visible()
    expect(state.locator(".badge")).to_have_text("completed")
    expect(state.locator(".timeline li")).to_have_count(3)
    outcomes = [one.get_attribute("data-outcome") for one in state.locator(".timeline li").all()]
    assert outcomes == ["failed", "failed", "completed"]


def test_digits_are_shown_as_they_are_computed_also_after_loading_again_in_the_middle(page: Page) -> None:
    page.goto("/stream")
    page.get_by_label("How many digits?").fill("300")
    page.get_by_role("button", name="Start the job").click()
    groups = page.locator("#groups > span")
    expect(groups.nth(4)).to_be_visible()
    assert groups.count() < 30, "they come one after the other"
    page.reload()
    expect(groups).to_have_count(30)
    expect(page.locator("#status")).to_have_text("completed")
    digits = "".join(groups.all_inner_texts())
    assert len(digits) == 300
    assert digits.startswith("14159265358979323846264338327950288419716939937510")
    assert digits[:300] == "".join(str(digit) for digit in islice(digits_of_pi(), 300))


def test_everything_can_be_done_with_the_keyboard(page: Page, tmp_path: Path) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("How many tasks?", exact=True)).to_be_focused()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_have_text("2 of 2 complete")
    for name in ("Images", "Retry", "Stream"):
        link = page.get_by_role("navigation").get_by_role("link", name=name)
        for _ in range(40):
            page.keyboard.press("Shift+Tab")
            if link.evaluate("one => one === document.activeElement"):
                break
        assert link.evaluate("one => getComputedStyle(one).outlineStyle") == "solid", "the focus is seen"
        page.keyboard.press("Enter")
        expect(page).to_have_title(re.compile(name))
        page.get_by_role("button").first.focus()
    page.goto("/images")
    page.get_by_label("Choose a picture").focus()
    page.get_by_label("Choose a picture").set_input_files(pictures.cmyk(tmp_path / "print.jpg"))
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Upload the picture")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Sizes")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_fit_narrow_and_wide_windows_in_light_and_dark(
    browser: Browser, demo: DemoServer, tmp_path: Path, watched: Watched, scheme: str, width: int
) -> None:
    context = browser.new_context(
        base_url=demo.url,
        viewport={"width": width, "height": 740},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = context.new_page()
    watched.listen(page)
    watched.expected = ("the server responded with a status of 404",)
    name = "a very long name without any space in it " + "x" * 200
    long_name = tmp_path / f"{name[:90]}.jpg"
    choose(page, pictures.photograph(long_name, width=1800, height=1200))
    page.get_by_role("button", name="Upload the picture").click()
    expect(page.get_by_role("heading", name="Sizes")).to_be_visible()
    picture = page.url
    page.goto("/")
    page.get_by_label("How many tasks?", exact=True).fill("2")
    page.get_by_role("button", name="Start the tasks").click()
    expect(page.locator("#summary")).to_have_text("2 of 2 complete")
    batch = page.url
    for path in (*PAGES, picture, batch):
        page.goto(path)
        page.evaluate("window.scrollTo(500, 0)")
        assert page.evaluate("window.scrollX") == 0, f"{path} scrolls sideways"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] > 128")
        assert light == (scheme == "light")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_enough_contrast(browser: Browser, demo: DemoServer, scheme: str, tmp_path: Path) -> None:
    context = browser.new_context(base_url=demo.url, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    choose(page, pictures.truncated(tmp_path / "half.jpg"))
    page.get_by_role("button", name="Upload the picture").click()
    expect(page.locator(".failed")).to_be_visible()
    failed = page.url
    page.goto("/")
    page.get_by_label("How many tasks?", exact=True).fill("30")
    page.get_by_role("button", name="Start the tasks").click()
    expect(page.locator("#rows .badge[data-status=complete]").first).to_be_visible()
    poor = {f"batch: {one}" for one in page.evaluate(CONTRAST)}
    for path in (*PAGES, failed):
        page.goto(path)
        poor |= {f"{path}: {one}" for one in page.evaluate(CONTRAST)}
    context.close()
    assert poor == set()


CONTRAST = """() => {
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.9) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !one.checkVisibility()) continue;
    if (one.closest(".unseen, .skip, script, template")) continue;
    const [a, b] = [light(numbers(getComputedStyle(one).color)), light(ground(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${one.tagName}.${one.className} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


def test_what_strangers_put_into_names_and_metadata_is_shown_and_never_run(page: Page, tmp_path: Path) -> None:
    page.add_init_script("window.alert = () => { document.documentElement.dataset.run = 'yes' }")
    evil = "<img src=x onerror=alert(1)>\"'><script>alert(1)</script>{{7*7}}"
    exif = Image.Exif()
    exif[0x010F] = evil
    path = tmp_path / "evil.jpg"
    pictures.scene().save(path, exif=exif)
    page.goto("/images")
    page.get_by_label("Choose a picture").set_input_files(
        {"name": evil, "mimeType": "image/jpeg", "buffer": path.read_bytes()}
    )
    page.get_by_role("button", name="Upload the picture").click()
    expect(page.get_by_role("table", name="Metadata")).to_contain_text("<img src=x onerror=alert(1)>")
    page.reload()
    expect(page.get_by_role("table", name="Metadata")).to_contain_text("{{7*7}}")
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("document.documentElement.dataset.run") is None
