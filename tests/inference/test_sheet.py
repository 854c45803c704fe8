import numpy as np
import pytest
from PIL import Image

from lesion.inference import choose, sheet
from lesion.inference.choose import Prediction


def predictions(rng, n=120):
    """Three slices a patient, one class a patient; some probabilities equal."""
    patient = np.arange(n) // 3
    probability = rng.integers(0, 12, n) / 11
    return [Prediction(i % 2, f"p{p}", f"s{i}", int(p % 2), float(probability[i])) for i, p in enumerate(patient)]


def test_the_rule_takes_a_patient_once_and_does_not_depend_on_order(rng):
    rows = predictions(rng)
    chosen = choose.choose(rows, each=3)
    assert choose.choose([rows[i] for i in rng.permutation(len(rows))], each=3) == chosen
    patients = [one.prediction.patient for one in chosen]
    assert len(set(patients)) == len(patients) == 18
    for why, row in chosen:
        right = int(row.probability > 0.5) == row.label
        assert why == choose.UNSURE or right == (why == choose.RIGHT)
    # Wrong ones come first: nobody wrong and surer was left out but for the slices of those shown.
    wrong = {one.prediction for one in chosen if one.why == choose.WRONG}
    for label in (0, 1):
        least = min(abs(row.probability - 0.5) for row in wrong if row.label == label)
        shown = {row.patient for row in wrong}
        left = [r for r in rows if r.label == label and r.patient not in shown and not choose.is_right(r)]
        assert all(abs(row.probability - 0.5) <= least for row in left)


def test_all_right_leaves_the_wrong_row_empty():
    rows = [Prediction(0, f"p{i}", f"s{i}", i % 2, 0.1 + 0.8 * (i % 2)) for i in range(4)]
    assert {one.why for one in choose.choose(rows)} == {choose.UNSURE}
    assert {one.why for one in choose.choose(rows, each=1)} == {choose.UNSURE, choose.RIGHT}


@pytest.mark.parametrize(("shape", "cell"), [((7, 7), (0, 6)), ((6, 6), (3, 2)), ((1, 1), (0, 0)), ((14, 7), (9, 1))])
def test_the_peak_lies_where_the_map_is_drawn_highest(shape, cell):
    heat = np.zeros(shape, np.float32)
    heat[cell] = 0.02
    drawn = sheet.enlarge(heat, 224)
    assert drawn.shape == (224, 224) and 0.9 < drawn.max() <= 1 and drawn.min() >= 0
    row, column = sheet.peak(heat, 224)
    assert drawn[round(row), round(column)] == pytest.approx(drawn.max(), abs=0.02)


def test_only_the_right_half_is_coloured_and_only_where_there_is_evidence(rng):
    image = rng.integers(0, 255, (28, 28), np.uint8)
    heat = np.zeros((4, 4), np.float32)
    plain = sheet.overlay(image, heat)
    assert sheet.peak(heat, 28) is None
    np.testing.assert_array_equal(plain[:, :28], plain[:, -28:])
    heat[0, 0] = 3.0
    lit = sheet.overlay(image, heat)
    np.testing.assert_array_equal(lit[:, :28], plain[:, :28])
    changed = (lit != plain).any(-1)[:, -28:]
    assert changed[:3, :3].all() and not changed[14:].any()


def test_the_sheet_is_a_picture_written_all_at_once(tmp_path, rng, monkeypatch):
    panel = sheet.Panel(
        rng.integers(0, 255, (28, 28), np.uint8), rng.random((4, 4)).astype(np.float32), "called glioma"
    )
    rows = [sheet.Row("right", [panel, panel]), sheet.Row("wrong", [], "no slice is wrong")]
    seen = []
    monkeypatch.setattr(sheet.Figure, "text", lambda self, x, y, s, **kw: seen.append(s))
    path = tmp_path / "gradcam.png"
    sheet.draw(path, rows, "title", ["note"], True)
    assert {"title", "note", sheet.PHANTOM[True]} <= set(seen) and sheet.NOTE in " ".join(seen)
    with Image.open(path) as picture:
        assert min(picture.size) > 200
    before = path.read_bytes()
    monkeypatch.setattr(sheet, "_panel", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sheet.draw(path, rows, "other", [], False)
    assert path.read_bytes() == before and [path] == list(tmp_path.iterdir())
