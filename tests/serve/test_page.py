"""The page in a real browser, Debian's chromium, against the real ``crnn serve``.

Without chromium these tests skip, but in CI they fail.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    Route,
    expect,
    sync_playwright,
)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
READABLE = ("regency", "harbour", "airport")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
COUNT_URLS = """
    window.held = new Set();
    const make = URL.createObjectURL, drop = URL.revokeObjectURL;
    URL.createObjectURL = (blob) => { const url = make.call(URL, blob); held.add(url); return url; };
    URL.revokeObjectURL = (url) => { held.delete(url); drop.call(URL, url); };
"""


@contextmanager
def served(**environment: str) -> Iterator[str]:
    """The address of a service of our own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "crnn", "serve", "--port", str(port), "--engine", "onnxruntime", "--threads", "1"]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(600):
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                urllib.request.urlopen(f"{address}readyz").close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)


expect.set_options(timeout=30_000)  # of a machine with other work


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served() as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium: apt-get install chromium")
        pytest.skip("no chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """The page, which must ask nobody but its server for anything, and have nothing to complain about."""
    asked: list[str] = []
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def note(request: Request) -> None:
        asked.append(request.url)

    context.on("request", note)
    page = context.new_page()
    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.add_init_script(COUNT_URLS)
    page.goto(address)
    expect(page.locator("#model")).not_to_be_empty()
    yield page
    assert not [url for url in asked if not url.startswith((address, f"blob:{address}"))]
    assert not complaints


def paths(*stems: str) -> list[Path]:
    return [next(EXAMPLES.glob(f"{stem}.*")) for stem in stems]


def drop(page: Page, *files: Path) -> None:
    """As a file manager does it: the browser gets the paths, folders too."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 600, "y": 300, "data": data})
    session.detach()


def texts(page: Page, count: int) -> list[str]:
    """What the cards say, once each has an answer."""
    expect(page.locator(".confidence, .failed")).to_have_count(count)
    return page.locator(".card h3").all_text_contents()


def card(page: Page, name: str) -> str:
    return page.locator(".card", has_text=name).inner_text()


def test_dropped_pictures_are_read_and_shown(page: Page) -> None:
    drop(page, *paths(*READABLE))
    assert texts(page, 3) == list(READABLE)
    expect(page.get_by_role("status")).to_have_text("3 pictures read.")
    for n, text in enumerate(READABLE):
        shown = page.locator(".card").nth(n)
        assert float(shown.locator(".confidence").inner_text().split()[0]) > 0.5
        assert shown.locator(".characters b").all_inner_texts() == list(text)
        assert all(0 <= float(it.split()[1]) <= 1 for it in shown.locator(".characters li").all_inner_texts())
        # each character has its letter over the picture, in the order of reading
        letters = shown.locator("svg .letter:not(.rival)")
        places = sorted((float(it.get_attribute("x") or 0), it.text_content()) for it in letters.all())
        assert [letter for _, letter in places] == list(text)
        expect(shown.locator("img")).to_have_count(2)
        widths = shown.locator("img").evaluate_all("all => all.map((one) => one.naturalWidth / one.naturalHeight)")
        assert widths[0] == widths[1] > 1


def test_a_broken_picture_has_its_error_and_the_others_their_text(page: Page, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(paths("open")[0].read_bytes()[:60])
    drop(page, paths("regency")[0], broken, paths("airport")[0])
    assert texts(page, 3) == ["regency", "Not read", "airport"]
    failed = page.locator(".card.failed")
    assert "broken.png" in failed.inner_text()
    assert len(failed.locator(".advice").inner_text()) > 10
    expect(page.get_by_role("status")).to_have_text("2 pictures read, 1 could not be read.")


def test_a_dropped_folder_gives_its_pictures(page: Page, tmp_path: Path) -> None:
    inner = tmp_path / "words" / "more"
    inner.mkdir(parents=True)
    shutil.copy(paths("regency")[0], inner.parent / "2.jpg")
    shutil.copy(paths("airport")[0], inner / "10.png")
    (inner.parent / "labels.txt").write_text("regency")
    drop(page, tmp_path / "words")
    assert sorted(texts(page, 2)) == ["airport", "regency"]
    assert "words/more/10.png" in card(page, "airport")
    expect(page.get_by_role("alert")).to_contain_text("not named like pictures")


def test_pasted(page: Page, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    data = list(paths("airport")[0].read_bytes())
    page.evaluate(
        "async (data) => navigator.clipboard.write([new ClipboardItem({'image/png': new Blob([new Uint8Array(data)],"
        " {type: 'image/png'})})])",
        data,
    )
    page.keyboard.press("Control+V")
    assert texts(page, 1) == ["airport"]
    assert "pasted-1.png" in card(page, "airport")


def test_lexicon(page: Page) -> None:
    drop(page, *paths("sale50", "regency"))
    first = texts(page, 2)
    assert first[1] == "regency"
    other = "sale5o" if first[0] == "sale50" else "sale50"  # near to what is read, but not that
    page.get_by_text("Read only certain words").click()
    page.get_by_label("Words that are possible").fill(f"{other}\nbakery\n")
    page.get_by_role("button", name="Read all pictures again").click()
    expect(page.locator(".card h3").first).to_have_text(other)
    read = texts(page, 2)
    assert read[0] == other and read[1] in (other, "bakery")
    assert f"Without the list, it reads “{first[0]}”." in card(page, "sale50.png")
    assert "fit below 0.001, low" in card(page, "regency.jpg")
    page.get_by_label("Words that are possible").fill("")
    page.get_by_role("button", name="Read all pictures again").click()
    expect(page.locator(".card h3").first).to_have_text(first[0])


def test_saved_and_copied(page: Page, context: BrowserContext, tmp_path: Path) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    formula, broken = tmp_path / '=HYPERLINK("x").jpg', tmp_path / "bro,ken.png"
    shutil.copy(paths("regency")[0], formula)
    broken.write_bytes(b"no picture")
    drop(page, formula, broken, paths("airport")[0])
    texts(page, 3)

    saved = {}
    for form in ("csv", "json"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Download {form.upper()}").click()
        assert waiting.value.suggested_filename == f"words.{form}"
        saved[form] = waiting.value.path().read_bytes().decode("utf-8-sig")
        page.get_by_role("button", name=f"Copy {form.upper()}").click()
        expect(page.get_by_role("status")).to_contain_text(form.upper())
        assert page.evaluate("navigator.clipboard.readText()").replace("\r", "") == saved[form].replace("\r", "")

    head, *rows = csv.reader(io.StringIO(saved["csv"], newline=""), strict=True)
    assert head == ["text", "confidence", "source", "error"]
    assert [row[0] for row in rows] == ["regency", "", "airport"]
    assert rows[0][2] == "'" + formula.name  # a spreadsheet would run it as it is
    assert rows[1][2] == broken.name and rows[1][3]
    words = json.loads(saved["json"])
    assert [word["source"] for word in words] == [formula.name, broken.name, "airport.png"]
    assert [word["text"] for word in words] == ["regency", None, "airport"]
    assert words[1]["error"]["message"] == rows[1][3]
    assert [it["character"] for it in words[0]["characters"]] == list("regency")
    assert float(rows[0][1]) == pytest.approx(words[0]["confidence"], abs=1e-6)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A wall with a sign on it, that says regency."""
    wall = Image.new("RGB", (1600, 1200), (150, 140, 130))
    wall.paste(Image.open(paths("regency")[0]), (700, 500))
    path = tmp_path / "wall.jpg"
    wall.save(path, quality=95)
    return path


def test_a_part_of_a_photograph(page: Page, photograph: Path) -> None:
    drop(page, photograph)
    texts(page, 1)
    expect(page.get_by_text("more than one word")).to_be_visible()
    page.get_by_role("button", name="Read a part").click()
    stage = page.locator("#cut-picture")
    expect(stage).to_be_visible()
    box = stage.bounding_box()
    assert box
    scale = box["width"] / 1600
    page.mouse.move(box["x"] + 700 * scale, box["y"] + 500 * scale)
    page.mouse.down()
    page.mouse.move(box["x"] + 1009 * scale, box["y"] + 587 * scale, steps=3)
    page.mouse.up()
    page.get_by_role("button", name="Read this part").click()
    assert texts(page, 2)[1] == "regency"
    assert "wall-part-1.png" in card(page, "part-1")

    page.get_by_role("button", name="Read a part").first.click()  # by the keyboard
    expect(page.locator("#cut-stage")).to_be_focused()
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Shift+ArrowUp")
    expect(page.locator("#cut-told")).to_have_text(
        "The frame is 6.0% from the left, 30.0% from the top, 80.0% wide, 36.0% high."
    )
    page.keyboard.press("Enter")
    texts(page, 3)
    assert "wall-part-2.png · 1280\u00a0×\u00a0432" in card(page, "part-2")

    page.get_by_role("button", name="Read a part").first.click()
    expect(page.locator("#cut-stage")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()
    expect(page.locator(".card")).to_have_count(3)


def test_a_telephone_takes_photographs(context: BrowserContext, address: str) -> None:
    page = context.new_page()
    page.goto(address)
    button = page.get_by_label("Take a photograph")
    expect(button).to_be_hidden()  # a browser without a camera of its own
    page.add_init_script("HTMLInputElement.prototype.capture = ''")
    page.goto(address)
    expect(page.get_by_text("Take a photograph")).to_be_visible()
    assert button.get_attribute("capture") == "environment"
    button.set_input_files(paths("regency")[0])
    assert texts(page, 1) == ["regency"]


def test_keyboard_alone(page: Page) -> None:
    page.on("filechooser", lambda _: None)  # from now on they come to us; just before the key would be too late

    def focus(selector: str) -> None:
        """Go on with Tab until it has the focus."""
        for _ in range(40):
            if page.evaluate("(it) => document.activeElement.matches(it)", selector):
                return
            page.keyboard.press("Tab")
        pytest.fail(f"Tab does not lead to {selector}")

    focus("#choose")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(paths("regency", "airport"))
    assert texts(page, 2) == ["regency", "airport"]

    focus(".card:nth-child(1) .lane")
    page.keyboard.press("ArrowRight")
    said = page.locator(".told").first
    expect(said).to_contain_text("Frame 1 of 26: ")
    page.keyboard.press("End")
    expect(said).to_contain_text("Frame 26 of 26: ")
    slider = page.get_by_role("slider").first
    assert slider.get_attribute("aria-valuetext") == said.inner_text()
    seen = []
    for _ in range(26):
        seen.append(said.inner_text().split(": ")[1].split()[0])
        page.keyboard.press("ArrowLeft")
    assert "".join(dict.fromkeys(it for it in reversed(seen) if it != "none")) == "regncy"  # its characters, once each

    focus(".card:nth-child(1) .remove")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(1)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Remove: airport.png"
    page.keyboard.press("Enter")
    expect(page.locator("#choose")).to_be_focused()


def test_many_pictures_in_groups(page: Page) -> None:
    answers: list[Response] = []
    page.on("response", lambda response: answers.append(response) if "v1/read" in response.url else None)
    data = paths("airport")[0].read_bytes()
    files = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": data} for n in range(40)]
    page.locator("#choose").set_input_files(files)  # type: ignore[arg-type]
    assert texts(page, 40) == ["airport"] * 40
    assert [len(answer.json()["words"]) for answer in answers] == [16, 16, 8]
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator(".thumb img")).to_have_count(40)
    assert page.locator(".lane svg").count() < 40  # only those near the window are drawn
    page.locator(".card").last.scroll_into_view_if_needed()
    expect(page.locator(".card").last.locator("svg .letter")).to_have_count(7)
    assert page.evaluate("held.size") == 40
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".card")).to_have_count(0)
    assert page.evaluate("held.size") == 0


def test_a_busy_and_a_lost_server(page: Page) -> None:
    answers = [503, None, 0, None]  # busy, read; lost, read

    def answer(route: Route) -> None:
        status = answers.pop(0)
        if status is None:
            route.continue_()
        elif status == 0:
            route.abort()
        else:
            error = {"error": {"code": "busy", "message": "too much"}}
            route.fulfill(status=status, json=error, headers={"Retry-After": "1"})

    page.route("**/v1/read*", answer)
    drop(page, *paths("regency"))
    expect(page.get_by_role("status")).to_contain_text("busy")
    assert texts(page, 1) == ["regency"]
    drop(page, *paths("airport"))
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")
    expect(page.get_by_role("status")).to_contain_text("1 waiting")
    page.get_by_role("button", name="Go on").click()
    assert texts(page, 2) == ["regency", "airport"]
    expect(page.get_by_role("alert")).to_be_hidden()


def test_api_key(context: BrowserContext) -> None:
    with served(CRNN_API_KEY="open-sesame") as address:
        page = context.new_page()
        page.goto(address)
        page.get_by_role("button", name="Read three examples").click()
        field = page.get_by_label("API key")
        field.fill("sesame")
        field.press("Enter")
        expect(page.locator("#key-why")).to_have_text("The server does not accept this API key.")
        field.fill("open-sesame")
        field.press("Enter")
        assert texts(page, 3)[0] == "regency"
        expect(field).to_be_hidden()


CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (element) => {
    for (let it = element; it; it = it.parentElement) {
      const colour = rgb(getComputedStyle(it).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgb("Canvas");
  };
  const low = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let checked = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("svg, noscript") || !element.checkVisibility()) continue;
    if (element.matches(":disabled")) continue;
    const [a, b] = [rgb(getComputedStyle(element).color), behind(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    checked += 1;
    if (ratio < 4.5) low.push(`${walker.currentNode.data.trim()}: ${ratio.toFixed(2)}`);
  }
  return [checked, low];
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_anybody_can_use_it(page: Page, tmp_path: Path, scheme: str) -> None:
    page.emulate_media(color_scheme="light" if scheme == "light" else "dark", reduced_motion="reduce")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    drop(page, *paths("regency", "coffee"), tmp_path / "broken.png")
    texts(page, 3)
    for summary in page.locator("summary").all():
        summary.click()

    checked, low = page.evaluate(CONTRAST)  # WCAG 2.2, 1.4.3
    assert checked > 40 and not low

    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    said = [(it["role"]["value"], it.get("name", {}).get("value", "")) for it in nodes if not it.get("ignored")]
    roles = {role for role, _ in said}
    assert {"main", "banner", "status", "slider", "list", "heading", "button", "textbox"} <= roles
    named = ("button", "textbox", "slider", "image", "link", "region", "progressbar")
    assert not [role for role, name in said if role in named and not name.strip()]
    levels = [int(it[1]) for it in page.locator("h1, h2, h3").evaluate_all("all => all.map((one) => one.localName)")]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert page.evaluate("getComputedStyle(document.getElementById('zone')).transitionDuration") == "0s"

    page.set_viewport_size({"width": 320, "height": 640})  # WCAG 2.2, 1.4.10: nothing is cut off at 400 %
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_nothing_but_its_own_files_may_run(address: str) -> None:
    with urllib.request.urlopen(address) as answer:
        policy = dict(part.split(maxsplit=1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] in ("'self'", "'none'")
    for kind in ("script-src", "style-src", "connect-src"):
        assert policy.get(kind, policy["default-src"]) == "'self'"
