import collections
import json
from pathlib import Path

import numpy as np
import pytest
from dicom_trees import dataset, save
from hypothesis import given
from hypothesis import strategies as st

from lesion.dicom.read import Attributes, SkippedFile, read_header
from lesion.dicom.rules import DEFAULT, Rules
from lesion.errors import UserError

RULES = Rules()
# Made-up headers with the right answer, {vendor, header, sequence}: nobody's files.
HEADERS = json.loads((Path(__file__).parent / "headers.json").read_text())


def sequence_of(path, header):
    pixels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    silent = dict.fromkeys(("EchoTime", "RepetitionTime", "InversionTime"))
    ds = dataset(pixels, spacing=(15, 15), SpecificCharacterSet="ISO_IR 192", SeriesDescription="", **silent)
    for keyword, value in header.items():
        setattr(ds, keyword, value)
    save(ds, path)
    read = read_header(str(path.parent), path.name)
    if isinstance(read, SkippedFile):  # of another modality
        return None
    (frame,) = read.frames
    return RULES.sequence_alone(frame.attributes)


@pytest.mark.slow
def test_every_made_up_header_is_what_it_is(tmp_path):
    answers = [(row, sequence_of(tmp_path / "image", row["header"])) for row in HEADERS]
    assert [row for row, answer in answers if answer != row["sequence"]] == []
    assert min(collections.Counter(row["sequence"] for row in HEADERS).values()) > 50


def t1(description="", agent="", **fields):
    return Attributes(description, echo_time_ms=9, repetition_time_ms=500, agent=agent, **fields)


WITH = ["{} KM", "{} mit KM", "{} post Gd", "{} +C", "{}+C", "{} C+", "{} avec gado", "{} con mdc", "{} com contraste"]
WITH += ["{} na contrast", "{} 增强", "{} 造影", "{} с контрастом", "{} POSTCONTRAST", "{} INJ", "{} double dose"]
WITHOUT = ["{} ohne KM", "{} nativ", "{} pre", "{} w/o contrast", "{} -Gd", "{} C-", "{} sans gado", "{} sin contraste"]
WITHOUT += ["{} senza mdc", "{} sem contraste", "{} zonder contrast", "{} 平扫", "{} 造影前", "{} без контраста"]
WITHOUT += ["{} non enhanced", "{} no enhancement", "{} vor KM", "{} avant injection", "{} utan kontrast"]
SILENT = ["{}", "{} SE", "{} W/WO contrast", "{} mit und ohne KM", "{} post op", "{} post fossa", "{} with fat sat"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Ax T1", "t1_tse_tra", "T1W_SE"])
@pytest.mark.parametrize("agent", ["", "Gadovist"])
def test_the_name_tells_the_agent_in_ten_languages_and_the_field_where_it_is_silent(name, agent):
    for names, answer in ((WITH, True), (WITHOUT, False), (SILENT, bool(agent))):
        said = {text: RULES.sequence_alone(t1(text.format(name), agent)) == "ce_t1wi" for text in names}
        assert said == dict.fromkeys(names, answer)


@pytest.mark.parametrize("agent", ["", "NONE", "no contrast", "0 ml", "ohne KM", "无", "N/A", "-", "without", "нет"])
def test_an_agent_field_that_denies_an_agent(agent):
    assert RULES.sequence_alone(t1("Ax T1", agent)) is None


@pytest.mark.parametrize(
    ("description", "protocol", "sequence"),
    [
        ("Ax T2 FLAIR", "BRAIN PERFUSION", "flair"),
        ("Ax T1", "BRAIN T1 WITH CONTRAST", None),
        ("Ax", "t1_se_tra_KM", "ce_t1wi"),
        ("Ax", "ep2d_diff", None),
    ],
)
def test_the_description_goes_before_the_name_of_the_examination(description, protocol, sequence):
    assert RULES.sequence_alone(t1(description, protocol=protocol)._replace(echo_time_ms=None)) == sequence


@pytest.mark.parametrize(
    ("attributes", "sequence"),
    [
        (Attributes("AX T2", (), 120, 9000, 2500), "flair"),  # by its times
        (Attributes("t1_fl2d_tra_KM", (), 90, 9000, 2500, "Gadovist"), None),  # name and times contradict each other
        (Attributes("AX T2 FLAIR", (), 9, 500, None, "Gadovist"), None),
        (Attributes("t2_tse_tra", (), 15, 4500), None),  # an early echo
        (Attributes("", (), 100, 5000), None),  # T2 or diffusion
        (Attributes("", (), 100, 5000, scanning_sequence=("SE",)), "t2wi"),
        (Attributes("", (), 100, 5000, scanning_sequence=("EP", "SE")), None),
        (Attributes("", (), 120, 9000, 2400), "flair"),
        (Attributes("", (), 100, 5000, acquisition_contrast="T2"), "t2wi"),
        (Attributes("T2", ("DERIVED", "PRIMARY", "MPR")), "t2wi"),
        (Attributes("FSE T2", ("ORIGINAL", "PRIMARY", "MPR")), "t2wi"),
        (Attributes("T1 spin echo flow comp +C", (), 10, 600), "ce_t1wi"),
        (Attributes("t1_star_vibe_tra_KM", (), 2, 5), "ce_t1wi"),
        (Attributes("Ax T2 brain", body_part="CSPINE"), "t2wi"),
        (Attributes("Ax T2", body_part="CSPINE"), None),
        (Attributes("Ax T2", body_part="HEAD", study_description="MRI C-SPINE"), "t2wi"),
    ],
)
def test_times_types_and_parts_of_the_body(attributes, sequence):
    assert RULES.sequence_alone(attributes) == sequence


def test_a_reformat_is_known_by_its_image_type():
    types = ("DERIVED", "SECONDARY", "REFORMATTED"), ("DERIVED", "PRIMARY", "MPR"), ("ORIGINAL", "PRIMARY", "MPR")
    assert [RULES.classify(Attributes("T2", type_)).reformat for type_ in types] == [True, True, False]


@pytest.mark.slow
@given(st.text(), st.floats(allow_nan=False) | st.none(), st.text())
def test_no_text_raises(text, number, agent):
    attributes = Attributes(text, (text,), number, number, number, agent, protocol=text, body_part=text)
    assert RULES.sequence_alone(attributes) in {None, "flair", "ce_t1wi", "t2wi"}


BAD_FILES = {  # fault: (what stands in the file, what instead, words of the message)
    "no TOML": ('name = "TIRM"', "name = TIRM", "line"),
    "no such sequence": ('name = "TIRM"\n', 'name = "TIRM"\nis = "stir"\n_ = "', "line"),
    "an unknown condition": ('name = "TIRM"\n', 'name = "TIRM"\ncolour = ["red"]\n', "TIRM has a condition colour"),
    "unknown words": ('name = "another TIRM"\ntext = ["tirm"]', 'name = "another TIRM"\ntext = ["x"]', ": x$"),
    "an empty range": ("b_value = [1, 100000]", "b_value = [5, 1]", r"line \d+: diffusion by b-value: b_value"),
    "a word of no group": ('tirm = ["tirm*"]', 'tirm = ["<nothing>"]', r"line \d+: tirm names a group <nothing>"),
    "no name": ('name = "TIRM"\n', "", r"line \d+: a rule has no name"),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_a_bad_file_of_rules_is_refused_by_line(tmp_path, fault):
    before, after, words = BAD_FILES[fault]
    text = DEFAULT.read_text()
    assert before in text
    (tmp_path / "rules.toml").write_text(text.replace(before, after))
    with pytest.raises(UserError, match=words) as error:
        Rules(tmp_path / "rules.toml")
    assert "rules.toml" in str(error.value) and "\n" not in str(error.value)


def test_another_file_is_another_answer(tmp_path):
    text = DEFAULT.read_text().replace('without_agent = "none"', 'without_agent = "flair"')
    (tmp_path / "rules.toml").write_text(text)
    assert Rules(tmp_path / "rules.toml").sequence_alone(t1("Ax T1")) == "flair"
