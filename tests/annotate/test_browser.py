"""The reading page in headless Chromium, against the real server: keys, two tabs, a killed server, no other host."""

import json

import example_round
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

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
    """Presses the key of an answer once the slice is on the screen."""
    WebDriverWait(browser, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, ".answers button:not([disabled])"))
    press(browser, key)


def answers(tmp_path):
    state = journal.read(tmp_path / "annotate")
    found = [state.answer(0, slice_) for slice_ in example_round.IDS]
    return [answer.label if answer else "" for answer in found]


def test_round_is_read_by_keys_alone(page, tmp_path):
    page.get_log("performance"), page.get_log("browser")
    page.refresh()
    shown(page, "slice 1 of 5", "5 left", "Phantom: simulated images", "Research use only", "T2WI")
    give(page, "1")
    shown(page, "slice 2 of 5", "4 left", "Said of this patient: encephalitis 1")
    give(page, "2")
    shown(page, "slice 3 of 5", "encephalitis 1, glioma 1")
    give(page, "s")
    shown(page, "slice 4 of 5", "patient 2 of 2", "T2WI: none")
    assert answers(tmp_path) == ["encephalitis", "glioma", "skip", "", ""]
    press(page, "u")
    shown(page, "slice 3 of 5", "3 left")
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
