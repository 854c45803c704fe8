import numpy as np
import pytest
from dicom_trees import dataset, head, save
from hypothesis import given
from hypothesis import strategies as st

from lesion.dicom.read import Attributes, read_header
from lesion.dicom.sequence import classify

SPIN_ECHO = {"EchoTime": 9, "RepetitionTime": 500, "InversionTime": None}


@pytest.mark.parametrize(
    ("description", "times", "agent", "expected"),
    [
        ("Ax T2 FLAIR", (), "", "flair"),
        ("t2_tirm_tra_dark-fluid_p2", (), "", "flair"),
        ("+C Ax T2 FLAIR FS", (), "Magnevist", "flair"),
        ("FLAIR_longTR", (120, 11000, 2800), "", "flair"),
        ("T2W_FLAIR SPAIR", (), "", "flair"),
        ("Ax T1 FLAIR", (), "", None),
        ("Ax T1 FLAIR +C", (), "", "ce_t1wi"),
        ("+C Ax T1 SE", (), "", "ce_t1wi"),
        ("AX T1 C+", (), "", "ce_t1wi"),
        ("t1_se_tra_KM", (), "", "ce_t1wi"),
        ("t1_mprage_sag_p2_post-Gd", (), "", "ce_t1wi"),
        ("sT1W/SE CE", (), "", "ce_t1wi"),
        ("T1W_TSE", (), "Gadovist", "ce_t1wi"),
        ("T1 pre contrast", (), "Gadovist", None),
        ("T1W_TSE", (), "NONE", None),
        ("t1_tse_tra", (10, 500, None), "", None),
        ("T2W_TSE", (), "", "t2wi"),
        ("OAx T2 frFSE", (102, 4500, None), "", "t2wi"),
        ("t2_tse_tra", (15, 4500, None), "", None),  # first echo
        ("t2_tse_tra_PD+T2", (90, 4500, None), "", None),
        ("Ax T2* GRE", (), "", None),
        ("ep2d_diff_3scan_trace_ADC", (), "", None),
        ("DWI_b1000", (80, 6000, None), "", None),
        ("3-plane loc", (), "", None),
        ("SWI_Images", (), "", None),
        ("", (120, 9000, 2400), "", "flair"),
        ("", (100, 5000, None), "", "t2wi"),
        ("", (10, 550, None), "Gd-DTPA", "ce_t1wi"),
        ("", (10, 550, None), "", None),
        ("", (), "", None),
        ("AX T2FLAIR", (), "", "flair"),
        ("t2_space_da-fl_sag_p2_iso", (), "", "flair"),
        ("AX T2", (120, 9000, 2500), "", "flair"),  # by its times
        ("t1_fl2d_tra_KM", (90, 9000, 2500), "Gadovist", None),  # a T1 by its name, a FLAIR by its times
        ("t2_tse_tra", (9, 500, None), "Gadovist", None),
        ("AX T2 FLAIR", (9, 500, None), "Gadovist", None),
        ("AX T2 ASSET", (), "", "t2wi"),
        ("ASSET", (2, 150, None), "Gadovist", None),
        ("AX T1+C", (), "", "ce_t1wi"),
        ("T1CE", (), "", "ce_t1wi"),
        ("t1_gre_tra_KM", (), "", "ce_t1wi"),
        ("AX T1 POST BRAIN W WO CONTRAST", (), "", "ce_t1wi"),
        ("AX T1 BRAIN W/WO", (), "", None),
        ("AX T1 NON-CON", (), "Gadovist", None),
        ("AX T1 no gad", (), "Gadovist", None),
        ("AX T1", (), "NO CONTRAST", None),
        ("AX T1", (), "0ml", None),
        ("AX T1", (), "0.1 mmol/kg Gadovist", "ce_t1wi"),
    ],
)
def test_headers_of_three_vendors(description, times, agent, expected):
    assert classify(Attributes(description, (), *(times or (None, None, None)), agent)) == expected


@pytest.mark.parametrize(
    ("description", "protocol", "times", "expected"),
    [
        ("Ax T2 FLAIR", "BRAIN PERFUSION", {}, "flair"),
        ("Ax T1", "BRAIN T1 WITH CONTRAST", SPIN_ECHO, None),
        ("Ax", "t1_se_tra_KM", SPIN_ECHO, "ce_t1wi"),
        ("Ax", "ep2d_diff", {}, None),
    ],
)
def test_the_description_goes_before_the_name_of_the_examination(tmp_path, description, protocol, times, expected):
    fields = times | {"SeriesDescription": description, "ProtocolName": protocol}
    save(dataset(head(32).astype(np.uint16), **fields), tmp_path / "image")
    (frame,) = read_header(str(tmp_path), "image").frames
    assert classify(frame.attributes) == expected


@given(st.text(), st.floats(allow_nan=False) | st.none(), st.text())
def test_no_text_raises(text, number, agent):
    assert classify(Attributes(text, (text,), number, number, number, agent)) in {None, "flair", "ce_t1wi", "t2wi"}
