"""The reading page in headless Chromium, against the real server: keys, two tabs, a killed server, no other host."""

import json
import time

import example_round
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from lesion import worklist
from lesion.worklist import journal, round_file

pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser, start, tmp_path):
    example_round.write(tmp_path)
    browser.switch_to.new_window("tab")
    browser.get(start()[1])
    shown(browser, "slice 1 of 5")
    yield browser
    for handle in browser.window_handles[1:]:
        browser.switch_to.window(handle)
        browser.close()
    browser.switch_to.window(browser.window_handles[0])


def text(browser):
    return browser.find_element(By.TAG_NAME, "body").text


def shown(browser, *words, within=20):
    WebDriverWait(browser, within).until(
        lambda b: all(word in text(b) for word in words), f"{words} not in {text(browser)!r}"
    )


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()


def give(browser, key):
    """Presses the key of an answer, or nothing, once the slice is on the screen."""
    WebDriverWait(browser, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, ".answers button:not([disabled])"))
    press(browser, key)


def answers(tmp_path):
    state = journal.read(tmp_path / "annotate")
    found = [state.answer(0, slice_) for slice_ in example_round.IDS]
    return [answer.label if answer else "" for answer in found]


def test_round_is_read_by_keys_alone(page, tmp_path):
    page.get_log("performance"), page.get_log("browser")
    page.refresh()
    assert not page.find_elements(By.TAG_NAME, "progress")  # one counter of what is left
    shown(page, "slice 1 of 5", "5 left", "Phantom: simulated images", "Research use only", "T2WI")
    give(page, "1")
    shown(page, "slice 2 of 5", "4 left", "Said of this patient: encephalitis 1")
    give(page, "2")
    shown(page, "slice 3 of 5", "encephalitis 1, glioma 1")
    give(page, "3")
    shown(page, "slice 4 of 5", "patient 2 of 2", "T2WI: none", "saved: slice 3, cannot tell")
    assert answers(tmp_path) == ["encephalitis", "glioma", "cannot_tell", "", ""]
    assert all(entry.seconds > 0 for entry in journal.read(tmp_path / "annotate").entries.values())
    press(page, "u")
    shown(page, "slice 3 of 5", "3 left", "taken back: slice 3")
    press(page, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    shown(page, "slice 1 of 5")
    assert page.find_element(By.CSS_SELECTOR, ".answers button:nth-child(1)").get_attribute("aria-pressed") == "true"
    give(page, "2")  # changes the answer, and goes on to an open slice
    shown(page, "slice 3 of 5", "glioma 2")
    give(page, "2")
    shown(page, "slice 4 of 5")
    give(page, "2")
    shown(page, "slice 5 of 5", "1 left")
    page.find_element(By.CSS_SELECTOR, ".answers button:nth-child(1)").click()
    shown(page, "All 5 slices of this round are answered", "python -m launch.active --again", "disk. Until they are")
    assert answers(tmp_path) == ["glioma", "glioma", "glioma", "glioma", "encephalitis"]
    press(page, Keys.ARROW_LEFT)
    shown(page, "slice 5 of 5")
    example_round.write(tmp_path, 1, [f"t{i}" for i in range(5)])
    shown(page, "Round 2", "slice 1 of 5", "5 left")
    assert not [line for line in page.get_log("browser") if line["level"] == "SEVERE"]
    messages = [json.loads(line["message"])["message"] for line in page.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    base = page.current_url
    assert len(urls) > 10 and all(url.startswith(base) for url in urls), urls
    sent = page.page_source + " ".join(url.removeprefix(base) for url in urls)  # the token may hold any letters
    assert not any(name in sent for name in (*example_round.IDS, "PA", "PB"))


def test_window_zoom_and_neighbours(page):
    def slope():
        return float(page.find_element(By.CSS_SELECTOR, "feFuncR").get_attribute("slope"))

    def image():
        return page.find_element(By.CSS_SELECTOR, ".viewer img")

    viewer = page.find_element(By.CSS_SELECTOR, ".viewer")
    assert slope() == 1
    ActionChains(page).drag_and_drop_by_offset(viewer, -200, 0).perform()
    assert slope() > 1.2  # a narrower window has more contrast
    press(page, "+")
    assert "scale(1.25)" in image().get_attribute("style")
    press(page, "0")
    assert slope() == 1 and "scale(1)" in image().get_attribute("style")
    press(page, Keys.ARROW_DOWN)
    shown(page, "neighbour +1: answers are for the outlined slice")
    assert "/picture/0/0/ce_t1wi/1?" in image().get_attribute("src")
    WebDriverWait(page, 20).until(lambda b: b.execute_script("return arguments[0].naturalWidth", image()) == 96)
    ActionChains(page).drag_and_drop_by_offset(viewer, -200, 0).perform()
    narrow_slope = slope()
    press(page, Keys.ARROW_RIGHT)
    shown(page, "slice 2 of 5")
    assert slope() == narrow_slope > 1  # the next slice is windowed alike
    # FLAIR has slices at 6, 12.5 and 19 mm; the one shown is at 6.5.
    assert "flair/0" in page.find_element(By.CSS_SELECTOR, "aside img").get_attribute("src")


def test_two_tabs_see_each_other(page, tmp_path):
    first = page.current_window_handle
    url = page.current_url
    asleep = "path === 'state' ? new Promise(() => {}) : real(path, ...rest)"  # this tab hears of nothing by itself
    page.execute_script(f"const real = window.fetch; window.fetch = (path, ...rest) => {asleep}")
    page.switch_to.new_window("tab")
    page.get(url)
    shown(page, "slice 1 of 5")
    give(page, "1")
    shown(page, "slice 2 of 5")
    page.switch_to.window(first)
    give(page, "2")  # before this tab has heard of the other's answer
    shown(page, "it is encephalitis now: answer again")
    assert answers(tmp_path)[0] == "encephalitis"
    give(page, "2")
    shown(page, "slice 2 of 5")
    assert answers(tmp_path)[0] == "glioma"


def test_killed_server_loses_and_doubles_nothing(browser, start, tmp_path):
    example_round.write(tmp_path)
    process, url = start()
    browser.get(url)
    shown(browser, "slice 1 of 5")
    give(browser, "1")
    shown(browser, "slice 2 of 5")
    WebDriverWait(browser, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, ".answers button:not([disabled])"))
    process.kill()
    process.wait()
    press(browser, "2")
    shown(browser, "NOT SAVED")
    press(browser, "1", "1")  # nothing is taken while the last is not saved
    assert start()[1] == url
    shown(browser, "slice 3 of 5", "3 left")
    assert answers(tmp_path) == ["encephalitis", "glioma", "", "", ""]
    assert len(journal.read(tmp_path / "annotate").entries) == 2


def test_new_round_under_an_old_page_is_shown_whole(page, tmp_path):
    give(page, "1")
    shown(page, "slice 2 of 5", "4 left")
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    shown(page, "slice 5 of 5")
    example_round.write(tmp_path, 1, ["t0", "t1"])  # shorter than where the page stands
    press(page, "2")
    shown(page, "Round 2", "slice 1 of 2", "2 left")
    give(page, "2")
    shown(page, "slice 2 of 2")
    state = journal.read(tmp_path / "annotate")
    assert [(e.round, e.slice, e.label) for e in state.entries.values()] == [
        (0, "s0", "encephalitis"),
        (1, "t0", "glioma"),
    ]


def test_nothing_is_answered_before_the_slice_is_shown(page, tmp_path):
    pictures = tmp_path / "annotate" / round_file.PICTURES
    pictures.rename(tmp_path / "elsewhere")
    page.refresh()
    shown(page, "slice 1 of 5")
    press(page, "1")
    shown(page, "not answered: the slice is not on the screen yet")
    (tmp_path / "elsewhere").rename(pictures)
    give(page, "2")  # it is tried again until it comes
    shown(page, "slice 2 of 5")
    assert answers(tmp_path) == ["glioma", "", "", "", ""]


def wheel(page, element, notches):
    origin = ScrollOrigin.from_element(element)
    for _ in range(abs(notches)):
        ActionChains(page).scroll_from_origin(origin, 0, 100 if notches > 0 else -100).perform()


def intercept(page):
    return float(page.find_element(By.CSS_SELECTOR, "feFuncR").get_attribute("intercept"))


def test_window_goes_the_way_of_other_viewers_and_side_pictures_live(page):
    large, side = page.find_elements(By.CSS_SELECTOR, ".viewer")[:2]
    ActionChains(page).drag_and_drop_by_offset(large, 300, 0).perform()
    assert page.find_element(By.CSS_SELECTOR, "feFuncR").get_attribute("slope") == "1"  # no wider than all greys
    ActionChains(page).drag_and_drop_by_offset(large, 0, 100).perform()
    assert intercept(page) < 0  # down is darker
    press(page, "0")
    wheel(page, side, 1)
    shown(page, "neighbour +1")
    ActionChains(page).drag_and_drop_by_offset(side, -100, 0).perform()
    assert float(page.find_element(By.CSS_SELECTOR, "feFuncR").get_attribute("slope")) > 1.2


def test_held_arrows_scroll_and_held_answers_do_not_repeat(page, tmp_path):
    def hold(key, code, times):
        fields = "{key: arguments[0], code: arguments[1], repeat: arguments[2]}"
        for i in range(times):
            page.execute_script(f"document.dispatchEvent(new KeyboardEvent('keydown', {fields}))", key, code, i > 0)

    hold("ArrowDown", "ArrowDown", 3)
    shown(page, "neighbour +3")
    hold("ArrowRight", "ArrowRight", 2)
    shown(page, "slice 3 of 5")
    give(page, "")
    hold("1", "Digit1", 5)
    shown(page, "slice 4 of 5", "4 left")
    assert answers(tmp_path) == ["", "", "encephalitis", "", ""]


@pytest.mark.parametrize(("key", "code"), [("&", "Digit1"), ("1", "Numpad1")])
def test_keys_count_by_their_place_where_they_type_something_else(key, code, page, tmp_path):
    def type_(key, code):
        page.execute_script(
            "document.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], code: arguments[1]}))", key, code
        )

    give(page, "")
    type_(key, code)
    shown(page, "slice 2 of 5", "4 left")
    type_("г", "KeyU")  # as a Russian keyboard does
    shown(page, "slice 1 of 5", "5 left")
    give(page, "")
    type_("g", "KeyU")  # a Latin letter that means nothing, on a Dvorak keyboard
    assert answers(tmp_path) == [""] * 5


def test_page_that_a_browser_translates_goes_on_counting(page):
    assert page.find_element(By.TAG_NAME, "html").get_dom_attribute("translate") == "no"
    page.execute_script(
        """for (const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), nodes = []; ;) {
          const node = walker.nextNode();
          if (node) { nodes.push(node); continue; }
          for (const text of nodes) {
            const font = document.createElement('font');
            font.textContent = text.data;
            text.replaceWith(font);
          }
          break;
        }"""
    )
    give(page, "1")
    shown(page, "slice 2 of 5", "4 left", "Said of this patient: encephalitis 1")
    give(page, "2")
    shown(page, "slice 3 of 5", "3 left", "these contradict each other")


def test_page_saves_where_the_browser_has_no_random_uuid(page, tmp_path):
    page.execute_script("Object.defineProperty(crypto, 'randomUUID', { value: undefined })")
    give(page, "1")
    shown(page, "slice 2 of 5", "saved: slice 1, encephalitis")
    assert answers(tmp_path)[0] == "encephalitis"


def test_what_is_not_saved_looks_like_an_alarm(browser, start, tmp_path):
    example_round.write(tmp_path)
    process, url = start()
    browser.get(url)
    shown(browser, "slice 1 of 5")

    def look():
        message = browser.find_element(By.CSS_SELECTOR, ".message")
        return message.get_attribute("role"), message.value_of_css_property("background-color")

    give(browser, "1")
    shown(browser, "saved: slice 1")
    calm = look()
    WebDriverWait(browser, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, ".answers button:not([disabled])"))
    process.kill()
    process.wait()
    press(browser, "2")
    shown(browser, "NOT SAVED")
    assert calm[0] == "status" and look()[0] == "alert" and look()[1] != calm[1]
    start()
    shown(browser, "saved: slice 2")
    assert look() == calm


def test_lost_reply_that_comes_again_after_the_next_round_opened_labels_nothing_else(page, tmp_path):
    give(page, "")
    # The answer arrives, its reply does not; when it is sent again, other slices are asked about.
    page.execute_script(
        """const real = window.fetch;
        window.lost = 0;
        window.fetch = async (path, options) => {
          const reply = await real(path, options);
          if (path !== 'answer' || (window.lost += 1) > 1) return reply;
          await window.opened;
          throw new Error('lost');
        };
        window.opened = new Promise((resolve) => { window.open_ = resolve; });"""
    )
    press(page, "1")
    WebDriverWait(page, 20).until(lambda b: answers(tmp_path)[0])
    example_round.write(tmp_path, 1, ["t0", "t1"])
    page.execute_script("window.open_()")
    shown(page, "Round 2", "slice 1 of 2", "2 left", "saved: slice 1, encephalitis")
    give(page, "2")
    shown(page, "slice 2 of 2")
    given = [(e.round, e.slice, e.label) for e in journal.read(tmp_path / "annotate").entries.values()]
    assert given == [(0, "s0", "encephalitis"), (1, "t0", "glioma")]


def test_missing_picture_is_told_and_not_asked_for_ever(page, tmp_path):
    page.execute_script("window.setTimeout = ((real) => (f, ms) => real(f, ms / 100))(window.setTimeout)")
    missing = tmp_path / "annotate" / round_file.PICTURES / "ce_t1wi_a1.png"
    png = missing.read_bytes()
    missing.unlink()
    press(page, Keys.ARROW_RIGHT)
    shown(page, "slice 2 of 5", "This picture cannot be loaded")
    requests = "return performance.getEntriesByType('resource').filter((e) => e.name.includes('ce_t1wi/1?')).length"
    before = page.execute_script(requests)
    time.sleep(1)
    assert page.execute_script(requests) == before
    press(page, "1")
    shown(page, "not answered: the slice is not on the screen yet")
    missing.write_bytes(png)
    page.find_element(By.CSS_SELECTOR, ".missing button").click()
    give(page, "1")
    shown(page, "slice 3 of 5", "4 left")
    assert answers(tmp_path) == ["", "encephalitis", "", "", ""]


def test_contradictions_are_told_before_they_are_trained_on_and_asked_again(page, tmp_path):
    for key, slice_ in zip("12444", (2, 3, 4, 5, 5), strict=True):
        give(page, key)
        shown(page, f"slice {slice_} of 5") if key != "4" or slice_ < 5 else None
    shown(page, "All 5 slices", "you said both of", "patient 1: encephalitis 1, glioma 1", "they are asked again")
    shown(page, "Of them: 3 not usable")
    page.find_element(By.CSS_SELECTOR, ".contradictions button").click()
    shown(page, "slice 3 of 5", "these contradict each other")
    said = [{"encephalitis": 1, "glioma": 1}, {}]
    example_round.write(tmp_path, 1, ["s1"], fit=0, again=worklist.CONTRADICTION, said=said)
    shown(page, "Round 1", "slice 1 of 1", "asked again: you said both of this patient", "glioma 1")
    give(page, "2")
    shown(page, "All 1 slices of this round are answered")
    assert "you said both of:" not in text(page)
