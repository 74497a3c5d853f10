"""The page of the server in a browser: what people do with it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from serving import serving, wait_for

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
if BROWSER is None:
    pytest.skip("there is no chromium", allow_module_level=True)

api.expect.set_options(timeout=30_000)  # on a busy machine everything takes long
PROMPT = "a red circle moves right over a navy background"
LONG = {"field-num_inference_steps": "90", "field-seconds": "4"}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 860}
# Where pictures of the page go, for people to look at.
PICTURES = os.environ.get("SDLTX_PAGE_PICTURES")


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)


@pytest.fixture
def tab(browser, server):
    """A tab with the page, in which nothing fails and which asks nobody else."""
    tabs = []

    def opened(url=server.url, **options):
        context = browser.new_context(**{"viewport": DESK, **options})
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.failures, page.asked = [], []
        page.on("pageerror", lambda error: page.failures.append(str(error)))
        page.on("console", lambda said: page.failures.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(url)
        tabs.append((context, page, url))
        return page

    yield opened
    for context, page, url in tabs:
        refusals = [text for text in page.failures if "status of 4" not in text and "ERR_" not in text]
        assert not refusals
        assert all(address.startswith((url, "blob:", "data:")) for address in page.asked), page.asked
        context.close()


def picture(page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png")


def ask(page, prompt: str = PROMPT, **fields: str) -> None:
    """Fills the form in and presses the button."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for name in fields:
        if not page.locator(f"#{name}").is_visible():
            page.get_by_text("More options").click()
        page.locator(f"#{name}").fill(fields[name])
    page.get_by_role("button", name="Make the video").click()


def card(page, prompt: str):
    return page.locator("#gallery li", has_text=prompt)


def address() -> str:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def requests_of(server) -> list[dict]:
    return json.loads(server.ask("/v1/videos?limit=100")[1])["data"]


def test_a_video_is_made_and_played(tab, server):
    page = tab()
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    # What it costs is told before the button is pressed.
    api.expect(page.locator("#cost")).to_contain_text(re.compile(r"128x128, 2\.08 s.*MiB of memory"))
    page.get_by_role("button", name="Make the video").click()
    entry = page.locator("#queue li", has_text=PROMPT)
    api.expect(entry.locator("img")).to_be_visible()  # a look at it before it is done
    picture(page, "making")
    api.expect(card(page, PROMPT)).to_be_visible()
    api.expect(page.locator("#queue-empty")).to_be_visible()
    api.expect(page.locator("#said")).to_contain_text("Done")
    api.expect(page.locator("#cost")).to_contain_text("about")  # now it is known how long one takes
    card(page, PROMPT).locator("video").evaluate("video => video.play()")
    wait_for(lambda: page.evaluate("document.querySelector('#gallery video').currentTime > 0.1"))
    card(page, PROMPT).get_by_text("Settings", exact=True).click()
    api.expect(card(page, PROMPT).locator("dl")).to_contain_text("seed")
    with page.expect_download() as download:
        card(page, PROMPT).get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.endswith(".mp4")
    assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"
    picture(page, "done")


def test_again_settings_and_removal(tab, server):
    page = tab()
    ask(page, "a green square", **{"field-seed": "5", "field-num_inference_steps": "2"})
    card(page, "a green square").get_by_role("button", name="Again with another seed").click()
    api.expect(card(page, "a green square")).to_have_count(2)
    api.expect(page.locator("#queue li")).to_have_count(0)
    made = [video for video in requests_of(server) if video["prompt"] == "a green square"]
    assert made[1]["sdltx"]["seed"] == 5 != made[0]["sdltx"]["seed"]
    assert [video["sdltx"]["num_inference_steps"] for video in made] == [2, 2]
    page.get_by_role("button", name="Begin anew").click()
    api.expect(page.get_by_label("Prompt", exact=True)).to_have_value("")
    card(page, "a green square").last.get_by_role("button", name="Use its settings").click()
    api.expect(page.get_by_label("Prompt", exact=True)).to_have_value("a green square")
    api.expect(page.locator("#field-seed")).to_have_value("5")
    for answer, count in (("Keep it", 2), ("Remove it", 1)):
        card(page, "a green square").last.get_by_role("button", name="Remove").click()
        page.get_by_role("button", name=answer).click()
        api.expect(card(page, "a green square")).to_have_count(count)


def test_one_is_cancelled(tab):
    page = tab()
    ask(page, "one to be cancelled", **LONG)
    entry = page.locator("#queue li", has_text="one to be cancelled")
    api.expect(entry).to_contain_text("Making it")
    entry.get_by_role("button", name="Cancel").click()
    api.expect(card(page, "one to be cancelled")).to_contain_text("Cancelled.")
    api.expect(entry).to_have_count(0)


def test_reloaded_in_the_middle_and_in_two_tabs(tab):
    first, second = tab(), tab()
    ask(first, "seen in both", **{"field-num_inference_steps": "30"})
    api.expect(second.locator("#queue li", has_text="seen in both")).to_be_visible()
    first.reload()
    api.expect(first.locator("#queue li", has_text="seen in both")).to_be_visible()
    api.expect(first.get_by_label("Prompt", exact=True)).to_have_value("seen in both")  # what was typed is kept
    api.expect(first.locator("#field-num_inference_steps")).to_have_value("30")
    for page in (first, second):
        api.expect(card(page, "seen in both")).to_be_visible()
    card(second, "seen in both").get_by_role("button", name="Remove").click()
    second.get_by_role("button", name="Remove it").click()
    api.expect(card(first, "seen in both")).to_have_count(0)


def test_errors_are_told_where_they_are(tab, server):
    page = tab()
    page.get_by_role("button", name="Make the video").click()
    api.expect(page.get_by_role("alert").first).to_contain_text("Write what is to be seen")
    api.expect(page.locator("#prompt")).to_be_focused()
    ask(page, "a circle", **{"field-width": "100"})
    problem = page.locator("#problem")
    api.expect(problem).to_contain_text("width 100")
    api.expect(page.locator("#field-width")).to_have_attribute("aria-invalid", "true")
    api.expect(page.locator("#field-width")).to_be_focused()
    picture(page, "error")
    page.locator("#field-width").fill("96")
    api.expect(problem).to_be_hidden()
    page.locator("#field-num_inference_steps").fill("500")
    api.expect(problem).to_contain_text("500 is more than 100")  # without the button
    api.expect(page.locator("#field-num_inference_steps")).to_have_attribute("aria-invalid", "true")
    page.locator("#field-num_inference_steps").fill("")
    page.locator("#field-input_reference").set_input_files(
        {"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.get_by_role("button", name="Make the video").click()
    api.expect(problem).to_contain_text("input-1.png")


def test_pictures_are_sent(tab, server, tmp_path):
    Image.new("RGB", (128, 128), (200, 20, 20)).save(tmp_path / "first.png")
    page = tab()
    page.get_by_label("First picture").set_input_files(tmp_path / "first.png")
    page.get_by_label("Last picture").set_input_files(tmp_path / "first.png")
    page.get_by_role("button", name="Leave out").last.click()
    ask(page, "from a picture", **{"field-num_inference_steps": "2"})
    api.expect(card(page, "from a picture")).to_be_visible()
    video = next(video for video in requests_of(server) if video["prompt"] == "from a picture")
    assert video["sdltx"]["request"]["images"] == [{"path": "input-1.png", "frame": 0}]
    # Its settings have the picture, too.
    page.reload()
    card(page, "from a picture").get_by_role("button", name="Use its settings").click()
    page.get_by_label("Prompt", exact=True).fill("from the same picture")
    page.get_by_role("button", name="Make the video").click()
    api.expect(card(page, "from the same picture")).to_be_visible()
    again = next(video for video in requests_of(server) if video["prompt"] == "from the same picture")
    assert again["sdltx"]["request"]["images"] == [{"path": "input-1.png", "frame": 0}]


def test_marks_in_prompts_are_text(tab):
    page = tab()
    evil = "<img src=x onerror=document.title='evil'> \u202e & ]]>"
    ask(page, evil, **{"field-num_inference_steps": "1"})
    api.expect(card(page, "<img src=x")).to_be_visible()
    assert "evil" not in page.title()


def test_keyboards_phones_and_readers(tab):
    page = tab(viewport=PHONE, color_scheme="dark")
    page.keyboard.press("Tab")
    api.expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    api.expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.type("typed alone")
    page.locator("#field-num_inference_steps").fill("1")
    page.locator("#prompt").press("Control+Enter")
    api.expect(card(page, "typed alone")).to_be_visible()
    page.get_by_text("More options").click()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    picture(page, "phone")
    # Everything that can be used has a name, and every name of an element is there once.
    named = """() => [...document.querySelectorAll('input, select, textarea, button, a, video, progress')].filter(
        one => one.checkVisibility() && !one.labels?.length
            && !one.getAttribute('aria-label') && !one.textContent.trim()
    ).map(one => one.outerHTML)"""
    assert page.evaluate(named) == []
    doubled = """() => {
        const ids = [...document.querySelectorAll('[id]')].map(one => one.id);
        return ids.filter((id, i) => ids.indexOf(id) != i);
    }"""
    assert page.evaluate(doubled) == []
    contrast = page.evaluate(
        """() => [...document.querySelectorAll('p, h2, h3, label, button, summary')].map(one => {
            const light = colour => {
                const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
                    .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
                return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
            };
            let behind = one;
            const none = 'rgba(0, 0, 0, 0)';
            while (behind.parentElement && getComputedStyle(behind).backgroundColor === none)
                behind = behind.parentElement;
            const [a, b] = [getComputedStyle(one).color, getComputedStyle(behind).backgroundColor].map(light);
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        })"""
    )
    assert min(contrast) >= 4.5
    was = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark or light").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != was
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != was


def test_a_token_is_asked_for(tab, tmp_path):
    with serving(tmp_path / "d", env={"SDLTX_SERVER_TOKEN": "secret"}) as guarded:
        page = tab(guarded.url)
        for _ in range(3):  # nothing works without, so it stays
            page.keyboard.press("Escape")
        page.get_by_label("Token", exact=True).fill("wrong")
        page.get_by_role("button", name="Go on").click()
        api.expect(page.locator("#login-problem")).to_contain_text("not the token")
        page.get_by_label("Token", exact=True).fill("secret")
        page.get_by_role("button", name="Go on").click()
        api.expect(page.locator("#model")).to_contain_text("LTX-2.3")
        ask(page, "behind a token", **{"field-num_inference_steps": "1"})
        api.expect(card(page, "behind a token")).to_be_visible()
        page.reload()
        api.expect(card(page, "behind a token")).to_be_visible()  # without being asked again
        guarded.end()
        api.expect(page.locator("#connection")).to_contain_text("does not answer")


def test_all_that_wait_are_shown_in_their_order(tab, tmp_path):
    """Also behind many that are over."""
    with serving(tmp_path / "d") as server:
        told = {"width": 256, "height": 256, "num_frames": 49, "num_inference_steps": 60, "seed": 1}
        ids = []
        for i in range(38):
            data = json.dumps({"prompt": f"video {i}", **told}).encode()
            ids.append(json.loads(server.ask("/v1/videos", "POST", data, content_type="application/json")[1])["id"])
        for id in ids[6:]:
            assert server.ask(f"/v1/videos/{id}/cancel", "POST")[0] == 200
        page = tab(server.url)
        entries = page.locator("#queue li h3")
        api.expect(entries).to_have_text([f"video {i}" for i in range(6)])
        api.expect(page.locator("#queue li").last).to_contain_text("5 before it")
        page.get_by_role("button", name="Show older ones").click()
        api.expect(page.locator("#gallery li")).to_have_count(32)
        # The server goes and comes, and all is as it was.
        port = server.url.rpartition(":")[2]
        page.locator("#queue li").last.get_by_role("button", name="Cancel").evaluate("button => window.late = button")
        server.end()
        api.expect(page.locator("#connection")).to_contain_text("does not answer")
        page.evaluate("window.late.click()")
        api.expect(page.locator("#problem")).to_contain_text("does not answer")
        with serving(tmp_path / "d", "--port", port):
            api.expect(page.locator("#connection")).to_have_text("")
            api.expect(page.locator("#problem")).to_be_hidden()
            api.expect(page.locator("#gallery li")).to_have_count(32)
            api.expect(entries).to_have_text([f"video {i}" for i in range(6)])
            page.evaluate("window.late.click()")  # which works again
            api.expect(page.locator("#gallery li")).to_have_count(33)


def test_many_tabs_share_one_stream(browser, server):
    """A browser has six connections to a server."""
    with browser.new_context() as context:
        pages = [context.new_page() for _ in range(8)]
        for page in pages:
            page.goto(server.url)
            api.expect(page.locator("#model")).to_contain_text("LTX-2.3")
        ask(pages[-1], "in every tab", **{"field-num_inference_steps": "1"})
        for page in pages:
            api.expect(card(page, "in every tab")).to_be_visible()
        pages[0].close()  # which had the stream
        ask(pages[1], "and again", **{"field-num_inference_steps": "1"})
        for page in pages[1:]:
            api.expect(card(page, "and again")).to_be_visible()


def test_a_key_that_is_held_makes_one_video(tab, server):
    page = tab()
    ask_for = page.get_by_label("Prompt", exact=True)
    ask_for.fill("a held key")
    page.keyboard.down("Control")
    for _ in range(4):
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    page.keyboard.up("Control")
    api.expect(page.locator("li", has_text="a held key")).to_have_count(1)
    assert [video["prompt"] for video in requests_of(server)].count("a held key") == 1
    page.locator("#field-num_inference_steps").press_sequentially("1e")
    page.get_by_role("button", name="Make the video").click()
    api.expect(page.locator("#problem")).to_have_text("num_inference_steps: that is no number")
    assert [video["prompt"] for video in requests_of(server)].count("a held key") == 1


def test_settings_of_another_video_come_back_whole(tab, server):
    page = tab()
    data = {"prompt": "much of it", "width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1, "seed": 2**60}
    images = [{"file": address(), "frame": frame, "strength": 0.5} for frame in (0, 8)]
    body = json.dumps({**data, "format": "gif", "images": images, "tiling": [64, 32, 0, 0]}).encode()
    status, told, _ = server.ask("/v1/videos", "POST", body, content_type="application/json")
    assert status == 200, told
    card(page, "much of it").get_by_role("button", name="Use its settings").click()
    hint = page.locator("#make p.hint", has_text="From the other video, too")
    api.expect(hint).to_contain_text("a picture at frame 0, a picture at frame 8, tiling 64,32,0,0")
    api.expect(hint).to_contain_text("seed is too large")
    page.get_by_label("Prompt", exact=True).fill("more of it")
    page.get_by_role("button", name="Make the video").click()
    api.expect(card(page, "more of it")).to_be_visible()
    made = next(video["sdltx"] for video in requests_of(server) if video["prompt"] == "more of it")
    assert (made["format"], made["request"]["tiling"]) == ("gif", [64, 32, 0, 0])
    assert [(one["frame"], one["strength"]) for one in made["request"]["images"]] == [(0, 0.5), (8, 0.5)]
    hint.get_by_role("button", name="Leave out").click()
    api.expect(hint).to_be_hidden()


def test_a_film_of_this_computer_counts_for_what_it_costs(tab, server, tmp_path):
    page = tab()
    ask(page, "a film", **{"field-num_inference_steps": "1"})
    api.expect(card(page, "a film")).to_be_visible()
    film = next(video["id"] for video in requests_of(server) if video["prompt"] == "a film")
    (tmp_path / "film.mp4").write_bytes(server.ask(f"/v1/videos/{film}/content")[1])
    page.get_by_text("More options").click()
    page.locator("#field-film").set_input_files(tmp_path / "film.mp4")
    page.locator("#field-foley").select_option("yes")
    api.expect(page.locator("#cost")).to_contain_text("MiB of memory")
    api.expect(page.locator("#problem")).to_be_hidden()


def test_it_works_without_a_page(tmp_path):
    with serving(tmp_path / "d", "--no-page") as server:
        wait_for(lambda: server.ask("/health")[0] == 200)
        assert server.ask("/")[0] == server.ask("/page/main.js")[0] == 404
