"""The page as people meet it: opened in a browser, clicked, typed at."""

import io
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image

from datamodules.prediction import Prediction, Strip
from datamodules.schema import Event, Query
from reports.page import Shown, write_page

COLOURS = {"red": (200, 40, 40), "green": (40, 170, 60), "blue": (40, 70, 210)}
EVIL = "a'b\"<script>document.title='broken'<!-- \u202egnp.עברית 😀#?%41&amp; $(x).mp4"
"""As a file name and as a text: markup, quotes, letters from the right, what URLs and shells understand."""


def asked(video: str, name: str, spans: tuple, events: tuple = (), rule: str | None = "digits", **more):
    query = Query(name, video, "grounding", **{"text": f"what {name} is"} | more, events=events, duration_s=12.0)
    return query, Prediction(name, video, "grounding", f"said {name}", spans, rule=rule)


@pytest.fixture(scope="module")
def page(clip, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "videos").mkdir()
    for name in ("clip.mp4", EVIL.replace("/", "_")):
        shutil.copy(clip, folder / "videos" / name)
    blue = asked("clip.mp4", "blue", ((9.0, 11.9, 0.9), (5.0, 9.0, 0.3)), (Event(9, 12),), source="one")
    red = asked("clip.mp4", "red", ((5.0, 9.0, 1.0),), (Event(0, 5),), source="two")
    talk = asked("clip.mp4", "unread", (), (Event(0, 1.5),), rule=None, source="two")
    events = Query("all", "clip.mp4", "dense_captioning", events=(Event(0, 5, "a red box"),), duration_s=12.0)
    described = Prediction(
        "all",
        "clip.mp4",
        "dense_captioning",
        "..",
        ((0.0, 5.0, 1.0), (5.0, 12.0, 1.0)),
        ("a red box", EVIL),
        saliency=(0.1, 0.9, 0.4),
        rule="x",
        strips=(Strip("<ent> 1", (0.1, 0.2, 0.9, 0.3)),),
    )
    evil = asked(EVIL, "evil", ((2.0, 4.0, 1.0),), text=EVIL)
    videos = (
        Shown("clip.mp4", 12.0, (blue, red, talk, (events, described)), folder / "videos/clip.mp4"),
        Shown(EVIL, 12.0, (evil,), folder / "videos" / EVIL.replace("/", "_")),
        Shown("lost.mp4", 12.0, (asked("lost.mp4", "lost", ((1.0, 2.0, 1.0),)),), folder / "lost.mp4"),
    )
    write_page(folder / "page.html", videos, f"Answers {EVIL}", {"run": EVIL})
    return folder / "page.html"


@pytest.fixture
def opened(browser, page):
    """The page, newly opened; nothing may go wrong in its script until the test ends."""
    browser.get(page.as_uri())
    browser.get_log("browser")
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def find(browser, selector: str, text: str = ""):
    return [item for item in browser.find_elements("css selector", selector) if text in item.text]


def wait(condition, seconds: float = 60.0):
    """What the condition gives, as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
    return found


def clock(browser) -> float:
    return browser.execute_script("return document.querySelector('video').currentTime")


def paused(browser) -> bool:
    return browser.execute_script("return document.querySelector('video').paused")


def colour(browser) -> str:
    """Of the picture that the player shows."""
    picture = Image.open(io.BytesIO(browser.find_element("css selector", "video").screenshot_as_png)).convert("RGB")
    pixel = picture.getpixel((picture.width // 2, picture.height // 5))
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], pixel, strict=True)))


def test_a_click_plays_the_span_from_its_second_to_its_end(opened):
    find(opened, ".predicted .span")[0].click()
    wait(lambda: 9.0 <= clock(opened) < 12)
    assert colour(opened) == "blue"
    wait(lambda: paused(opened))
    assert 11.85 <= clock(opened) <= 12.0
    find(opened, ".chip", "5.0–9.0")[0].click()
    wait(lambda: 5.0 <= clock(opened) < 6)
    assert colour(opened) == "green"
    find(opened, ".true .span")[1].click()  # what was asked second is red
    wait(lambda: clock(opened) < 1)
    assert colour(opened) == "red"


def test_keys_play_and_move(opened):
    keys = opened.find_element("css selector", "body").send_keys
    keys("n")
    wait(lambda: clock(opened) >= 9.0)
    keys("n")
    wait(lambda: 5.0 <= clock(opened) < 7)
    keys(" ")
    wait(lambda: paused(opened))
    before = clock(opened)
    keys("\ue012")  # left
    wait(lambda: abs(clock(opened) - (before - 1)) < 0.05)
    keys("\ue014")  # right
    wait(lambda: abs(clock(opened) - before) < 0.05)
    keys("\ue015\ue015")  # down, down
    assert find(opened, ".entry[aria-current]", "what unread is")
    keys("p")
    find(opened, ".span")[0].send_keys(" ")  # plays or stops, as everywhere; it is not a click on the span
    wait(lambda: paused(opened))


def entries(browser) -> list[str]:
    return [item.text.splitlines()[0] for item in find(browser, ".entry .text")]


def change(browser, name: str, value: str) -> None:
    browser.execute_script(
        "const one = document.querySelector(`#filters [name=${arguments[0]}]`); one.value = arguments[1];"
        "['input', 'change'].forEach((kind) => one.dispatchEvent(new Event(kind)))", name, value
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "left"),
    [
        ("text", "RED", ["what red is", "Everything that happens"]),
        ("text", "no such words", []),
        ("task", "dense_captioning", ["Everything that happens"]),
        ("rule", "unparsed", ["what unread is"]),
        ("source", "two", ["what red is", "what unread is"]),
        ("low", "4", ["what red is", "Everything that happens"]),
        ("high", "1.5", ["what unread is", "what lost is"]),
    ],
)
def test_filters_filter(opened, name, value, left):
    assert len(entries(opened)) == 6
    change(opened, name, value)
    assert sorted(entries(opened)) == sorted(left)
    assert find(opened, "#count")[0].text == f"{len(left)} of 6 answers"
    change(opened, name, "")
    assert len(entries(opened)) == 6


def test_the_worst_answers_come_first(opened):
    change(opened, "sort", "worst")
    assert entries(opened)[:3] == ["what red is", "what unread is", "what blue is"]
    change(opened, "sort", "best")
    assert entries(opened)[0] == "what blue is"


def test_errors_at_a_glance(opened):
    text = find(opened, "#overview")[0].text
    assert "3 queries, mIoU 32.2" in text  # 0.967, 0 and 0
    assert "Nothing could be read from 1 answers" in text
    assert find(opened, "#unparsed", "said unread")
    assert len(find(opened, "canvas.scatter")) == 2


def test_events_saliency_and_strips_are_on_the_timeline(opened):
    assert find(opened, ".predicted .span", "a red box")
    assert len(find(opened, ".curve")) == len(find(opened, ".strip")) == 1
    assert "<ent> 1" in find(opened, "figcaption", "ent")[0].text


def test_text_from_files_is_text(opened):
    assert opened.title == f"Answers {EVIL}"
    assert find(opened, "h1")[0].text.startswith("Answers a'b\"<script>")
    change(opened, "text", "evil")
    change(opened, "text", EVIL)
    find(opened, ".entry")[-1].click()
    wait(lambda: opened.execute_script("return document.querySelector('video').readyState") > 0)
    assert "<script>document.title='broken'<!--" in find(opened, "#stage h2")[0].text
    assert opened.execute_script("return document.querySelectorAll('script').length") == 2
    find(opened, ".span")[0].click()
    wait(lambda: clock(opened) >= 2.0)


def test_a_script_that_slips_in_is_not_run(opened):
    opened.execute_script(
        "const s = document.createElement('script'); s.text = 'document.title = 1'; document.body.append(s)"
    )
    assert opened.title != "1"
    (entry,) = opened.get_log("browser")
    assert "Content Security Policy" in entry["message"]


def test_a_video_that_is_not_there_is_said_so(opened):
    find(opened, ".entry", "what lost is")[0].click()
    assert "There is no" in find(opened, ".player .note")[0].text
    assert find(opened, ".span")


def test_an_embedded_video_plays_without_its_file(browser, clip, tmp_path):
    copy = shutil.copy(clip, tmp_path / "clip.mp4")
    shown = Shown("clip.mp4", 12.0, (asked("clip.mp4", "blue", ((9.0, 11.9, 1.0),)),), Path(copy))
    write_page(tmp_path / "page.html", [shown], "x", embed=True)
    Path(copy).unlink()
    browser.get((tmp_path / "page.html").as_uri())
    find(browser, ".span")[0].click()
    wait(lambda: clock(browser) >= 9.0)
    assert colour(browser) == "blue"
