import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_trees import NAME, ROOT, dataset, head, save
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from lesion.dataset import prepare, pseudonyms, series_found, store
from lesion.dicom.folder import Options


@pytest.fixture
def mixed(flair_tree):
    """FLAIR of four patients, and of one also a localizer, a T1 of which nobody knows, and a broken file."""
    pixels = head(64).astype(np.uint16)
    scout = {"SeriesDescription": "Übersicht", "SpecificCharacterSet": "ISO_IR 100"}
    save(dataset(pixels, "MRN000", "81", 1, **scout), flair_tree / "a")
    t1 = {"SeriesDescription": "<b>t1</b>", "ContrastBolusAgent": ""}
    save(dataset(pixels, "MRN000", "82", 1, "ce_t1wi", **t1), flair_tree / "b")
    (flair_tree / "c.dcm").write_bytes(b"broken")
    return flair_tree


def read_rows(tree):
    with (tree / pseudonyms.FOLDER / series_found.CSV_FILE).open(newline="") as stream:
        return {row["series_instance_uid"]: row for row in csv.DictReader(stream)}


@pytest.mark.slow
def test_a_survey_tells_of_every_series_and_makes_no_dataset(mixed):
    (mixed / "patients.csv").unlink()
    command = [sys.executable, "-m", "launch.prepare", f"--input={mixed}", "--survey"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4 patients have" in done.stdout and "rejected: 1 × not DICOM; " in done.stdout
    assert "c.dcm,not DICOM" in (mixed / pseudonyms.FOLDER / pseudonyms.REJECTS_FILE).read_text()
    assert NAME not in done.stdout and "MRN00" not in done.stdout
    rows = read_rows(mixed)
    assert len(rows) == 6 and set(next(iter(rows.values()))) == set(series_found.COLUMNS)
    scout, t1 = rows[f"{ROOT}.181"], rows[f"{ROOT}.182"]
    assert (scout["sequence"], scout["used"], scout["description"]) == ("", "no", "Übersicht")
    assert "localizer" in scout["reason"] and "agent" in t1["reason"]
    assert [row["used"] for row in rows.values()].count("yes") == 4
    page = (mixed / pseudonyms.FOLDER / series_found.PAGE_FILE).read_text()
    assert page.count("data:image/jpeg") == 6 and "<b>t1</b>" not in page
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", page)
    done = subprocess.run(command[:-1], capture_output=True, text=True)
    assert done.returncode == 1 and "--output" in done.stderr


def test_ids_that_differ_in_blanks_and_case_are_told_and_an_earlier_private_folder_is_not_read(mixed, tmp_path):
    save(dataset(head(64).astype(np.uint16), "mrn-000", "83"), mixed / "part" / pseudonyms.FOLDER / "d")
    assert "one person?" not in prepare.survey(mixed, tmp_path)
    save(dataset(head(64).astype(np.uint16), "mrn-000", "83"), mixed / "d")
    text = prepare.survey(mixed, tmp_path)
    assert re.search("warning: the PatientIDs of p[0-9a-f]{16}, p[0-9a-f]{16} differ in case", text)
    assert "mrn" not in text.casefold()


def test_the_table_for_the_terminal_lists_who_misses_a_sequence_where_there_are_many(mixed):
    text = prepare.survey(mixed, mixed / pseudonyms.FOLDER)
    assert text.count("\n") == 7 and "4 patients have" in text
    many = {f"P{i}": f"p{i:04d}" for i in range(100)}
    text = series_found.overview([], many)
    assert text.count("\n") == series_found.MAX_ROWS + 2 and "100 patients miss a sequence, 40 of them" in text


@pytest.mark.slow
def test_a_correction_on_the_page_is_heeded(mixed, browser, tmp_path):
    prepare.survey(mixed, mixed / pseudonyms.FOLDER)
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.get_log("browser")  # what earlier pages left
    browser.get((mixed / pseudonyms.FOLDER / series_found.PAGE_FILE).as_uri())
    for uid, answer in ((f"{ROOT}.182", "ce_t1wi"), (f"{ROOT}.101", "skip")):
        Select(browser.find_element(By.CSS_SELECTOR, f"select[data-uids='{uid}']")).select_by_value(answer)
    assert "2 corrections" in browser.find_element(By.ID, "count").text
    browser.find_element(By.ID, "save").click()
    saved = Path(tmp_path, "series.csv")
    WebDriverWait(browser, 20).until(lambda b: saved.exists())
    saved.rename(mixed / "series.csv")
    prepare.prepare(mixed, tmp_path / "data", mixed / pseudonyms.FOLDER)
    info = store.load_info(tmp_path / "data")
    assert info["sequences"]["ce_t1wi"]["encephalitis"]["slices"] == 1
    assert sum(counts["slices"] for counts in info["sequences"]["flair"].values()) == 9
    rows = read_rows(mixed)
    assert rows[f"{ROOT}.182"]["reason"].startswith("series.csv row")
    browser.refresh()  # the page made again keeps the corrections
    chosen = Select(browser.find_element(By.CSS_SELECTOR, f"select[data-uids='{ROOT}.182']"))
    assert chosen.first_selected_option.get_attribute("value") == "ce_t1wi"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_rules_of_the_user_are_taken(mixed, tmp_path):
    rules = Options().rules.read_text().replace('without_agent = "none"', 'without_agent = "t2wi"')
    (tmp_path / "rules.toml").write_text(rules)
    prepare.survey(mixed, mixed / pseudonyms.FOLDER, Options(rules=tmp_path / "rules.toml"))
    assert read_rows(mixed)[f"{ROOT}.182"]["sequence"] == "t2wi"
