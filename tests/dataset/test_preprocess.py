import numpy as np
import pytest
from dicom_trees import NAME, burn, head
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from lesion.dataset import burned_in_text, preprocess

SPACING = (1.9, 1.9)


def series(spacing=SPACING, size=128, **kwargs):
    volume = np.stack([head(size, at=at, seed=i, **kwargs) for i, at in enumerate((-0.6, -0.2, 0.2, 0.6))])
    return volume.astype(np.float32), preprocess.plan_series(volume.astype(np.float32), spacing, [None] * 4)


def write_over(image, text, place, height, value, mode="1"):
    """The image with text, in `mode` L with smoothed edges; and where at least a third of a pixel is text."""
    drawn = Image.new(mode, image.shape[::-1])
    full = 255 if mode == "L" else 1
    ImageDraw.Draw(drawn).text(place, text, fill=full, font=ImageFont.load_default(height))
    share = np.asarray(drawn).astype(float) / full
    return share * value + (1 - share) * image, share > 1 / 3


def test_the_crop_is_the_brain():
    _, plan = series()
    assert plan.region == "brain"
    y, x = np.mgrid[-1:1:128j, -1:1:128j] * 1.25
    rows = np.flatnonzero((np.hypot(x / 0.8, y) < 0.82).any(axis=1))
    extent = (rows[-1] + 1 - rows[0]) * SPACING[0]
    assert extent <= plan.side_mm <= extent + 25
    assert np.allclose(plan.center, 64, atol=2)


def test_the_crop_is_square_in_millimetres_for_anisotropic_pixels():
    volume, plan = series()
    squeezed = preprocess.plan_series(volume[:, ::2], (3.8, 1.9), [None] * 4)
    assert squeezed.side_mm == pytest.approx(plan.side_mm, abs=12)
    a, b = preprocess.prepare_slice(volume[1], plan), preprocess.prepare_slice(volume[1, ::2], squeezed)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.85  # half the rows are gone


@pytest.mark.parametrize("corner", [(2, 1), (2, 115), (70, 1), (60, 115)])
def test_text_in_a_corner_leaves_no_trace(corner):
    volume, _ = series()
    dirty, mask = np.empty_like(volume), None
    for i, image in enumerate(volume):
        dirty[i], mask = write_over(image, NAME[:9], corner, 10, 900)
    plan = preprocess.plan_series(dirty, SPACING, [None] * 4)
    clean, gone = preprocess.remove_text(dirty[1], plan)[:2]
    far = mask & (volume[1] < 100)
    assert np.all(clean[far] <= 500)
    corners = np.ones_like(mask)
    corners[20:108, 20:108] = False
    assert not preprocess.to_uint8(clean, plan.window)[corners & mask].any()
    assert gone[corners & mask].all()


@pytest.mark.parametrize("place", [(35, 5), (20, 60), (60, 60)])
@pytest.mark.parametrize(("mode", "height"), [("1", 10), ("L", 14), ("L", 20)])
def test_white_letters_over_the_head_are_filled_from_around(place, mode, height):
    volume, plan = series()
    dirty, mask = write_over(volume[1], "ZHANG 1961", place, height, 1000, mode)
    clean = preprocess.remove_text(dirty.astype(np.float32), plan).image
    assert (clean[mask] < 800).mean() > 0.97
    rest = preprocess.head_mask(volume[1], plan) & ~burned_in_text.find(dirty)
    np.testing.assert_array_equal(clean[rest], volume[1][rest])


def test_saturated_fat_is_no_text():
    image = np.minimum(head(256) * 3, 1000)
    assert burned_in_text.find(image).sum() < 0.02 * (image == 1000).sum()


def noisy_head(size=256, level=150):
    """A head as an 8-bit picture, float32, its brightest value that of none."""
    return np.rint(np.clip(head(size, air=8) * level / 650, 0, 235)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("saturated", [False, True])
def test_grey_letters_are_read_and_the_head_is_not(saturated):
    """Only text is filled; where the maximum repeats, letters told by their look alone were more than is allowed."""
    clean = noisy_head()
    clean = np.where(clean >= 140, 255, clean) if saturated else clean
    spacing = (0.9, 0.9)
    plan = preprocess.plan_series(clean[None], spacing, [None])._replace(reads_text=True)
    mask = preprocess.head_mask(clean, plan)
    assert ((burned_in_text.find(clean) & mask).sum() > preprocess.MAX_FILLED * mask.sum()) == saturated
    untouched = preprocess.remove_text(clean, plan)
    assert not untouched.written and not untouched.look
    np.testing.assert_array_equal(untouched.image[mask], clean[mask])
    for level, height, place in [(255, 12, (90, 100)), (30, 14, (80, 150)), (200, 18, (2, 2)), (200, 14, (5, 110))]:
        dirty, letters = write_over(clean, "ZHANG WEI", place, height, level, "L")
        letters &= np.abs(dirty - clean) > 25
        found = preprocess.remove_text(dirty.astype(np.float32), plan)
        assert found.written, (level, height)
        left = np.abs(found.image - dirty) < np.abs(dirty - clean) / 2
        assert (left & letters & mask).sum() < 0.15 * letters.sum(), (level, height)
        strokes = found.gone & mask & ~ndimage.maximum_filter(letters, 7)
        assert strokes.sum() < 0.005 * mask.sum()
        mask_then = preprocess.head_mask(dirty.astype(np.float32), plan)
        too_much = (found.gone & mask_then).sum() > preprocess.MAX_FILLED * mask_then.sum()
        assert ("% of the head" in found.look) == too_much


@pytest.mark.slow
def test_a_picture_of_any_shape_and_value_is_read():
    for image in (np.zeros((40, 40)), np.eye(3), np.arange(3000.0)[None], np.arange(3000.0)[:, None]):
        assert burned_in_text.read(image) == []


def test_what_covers_more_than_a_fiftieth_of_the_head_is_looked_at():
    volume, plan = series()
    small, large = (write_over(volume[1], text, (40, 50), 12, 1000)[0] for text in ("J. D.", "ZHANG WEI\n19610203\nM"))
    assert not preprocess.remove_text(small.astype(np.float32), plan).look
    assert "% of the head" in preprocess.remove_text(large.astype(np.float32), plan).look


def test_text_does_not_move_window_or_crop():
    volume, plan = series()
    dirty = np.stack([burn(image, "A.B. 1961", 4000) for image in volume]).astype(np.float32)
    other = preprocess.plan_series(dirty, SPACING, [None] * 4)
    assert other.window == pytest.approx(plan.window, rel=0.02)
    assert other.side_mm == pytest.approx(plan.side_mm, abs=4)


@pytest.mark.parametrize(
    ("windows", "taken"),
    [
        ([(0.0, 700.0)] * 4, True),
        ([(0.0, 690.0), (0.0, 700.0), (0.0, 700.0), (0.0, 710.0)], True),
        ([(0.0, 700.0), None, (0.0, 700.0), (0.0, 700.0)], False),  # one slice has none
        ([(-5000.0, 90000.0)] * 4, False),  # all grey
        ([(640.0, 700.0)] * 4, False),  # mostly black
        ([(-100.0, 100.0)] * 4, False),  # mostly white
    ],
)
def test_a_window_of_the_header_is_taken_if_sane(windows, taken):
    volume, _ = series()
    window = preprocess.plan_series(volume, SPACING, windows, window_from="header").window
    assert (window == (0.0, 700.0)) == taken


@pytest.mark.parametrize(("fat", "gain"), [(1.0, 0.95), (2.5, 1.9), (6.0, 4.0)])
def test_scalp_fat_does_not_dim_the_brain(fat, gain):
    """Brain that has `gain` times the grey values, nor does a header's window that clips half of it count."""
    y, x = np.mgrid[-1:1:128j, -1:1:128j] * 1.25
    radius = np.hypot(x / 0.8, y)
    volume, _ = series()
    volume[:, (radius > 0.93) & (radius < 1)] *= fat
    brain = volume[:, radius < 0.7]
    clips = (float(np.percentile(brain, 50)), 6000.0)
    shares, plans = {}, {}
    for window_from in preprocess.WINDOWS:
        windows = [clips if window_from == "head" else None] * 4
        plans[window_from] = plan = preprocess.plan_series(volume, SPACING, windows, window_from=window_from)
        shown = preprocess.to_uint8(brain, plan.window)
        shares[window_from] = np.ptp(np.percentile(shown, (5, 95))) / 255
        if window_from == "head":
            assert (brain > plan.window[1]).mean() <= 0.02 and (brain < plan.window[0]).mean() <= 0.02
    assert shares["head"] == shares["header"] > 0.3  # without a header's window the same
    assert shares["head"] >= gain * shares["series"]
    assert plans["series"].window[0] == plans["head"].window[0]


def test_one_bright_slice_does_not_set_the_window():
    volume, plan = series()
    bright = np.concatenate([volume] * 3)
    bright[5, 60:64, 60:64] *= 50
    assert preprocess.plan_series(bright, SPACING, [None] * 12).window == pytest.approx(plan.window, rel=0.02)


def test_a_lookup_table_is_the_window_where_the_header_counts():
    volume, _ = series()
    table = np.sqrt(np.linspace(0, 1, 1001)) * 4000
    lut, windows = table.astype("<u2").tobytes(), [(0.0, 1000.0)] * 4
    plan = preprocess.plan_series(volume, SPACING, windows, [lut] * 4, "header")
    values = np.array([-9.0, 0, 250, 1000, 5000])
    assert preprocess.to_uint8(values, plan.window, plan.voi_lut).tolist() == [0, 0, 128, 255, 255]
    for luts, window_from in (([lut] * 4, "head"), ([lut, *[lut[:-2]] * 3], "header"), ([b""] * 4, "header")):
        assert not preprocess.plan_series(volume, SPACING, windows, luts, window_from).voi_lut


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    spacing=st.tuples(st.floats(0.2, 6), st.floats(0.2, 6)),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["noise", "zeros", "constant", "negative"]),
)
def test_any_picture_becomes_224_by_224(shape, spacing, seed, kind):
    values = np.random.default_rng(seed).normal(0, 100, (2, *shape))
    volume = {"noise": np.abs(values), "zeros": values * 0, "constant": values * 0 + 7, "negative": values}[kind]
    plan = preprocess.plan_series(volume.astype(np.float32), spacing, [None, None])
    image = preprocess.prepare_slice(volume[0].astype(np.float32), plan)
    assert image.shape == (224, 224)
    assert image.dtype == np.uint8
    assert min(preprocess.output_spacing(plan)) > 0


@given(st.floats(-1e4, 1e4), st.floats(0.1, 1e4), st.floats(-1e5, 1e5))
def test_windowing_is_monotone_and_bounded(low, width, value):
    a, b = preprocess.to_uint8(np.array([value, value + width / 10]), (low, low + width))
    assert 0 <= a <= b <= 255


def test_resize_is_pillows(rng):
    image = rng.integers(0, 256, (300, 260), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(preprocess.resize(image), expected)


@pytest.mark.parametrize("center", [(0.0, 0.0), (64.0, 64.0), (128.0, 10.0)])
def test_a_crop_over_the_edge_is_padded(center):
    image = np.arange(1, 128 * 128 + 1).reshape(128, 128)
    plan = preprocess.Plan((0, 1), 0, center, 100.0, (1.0, 1.0), "brain")
    cut = preprocess.crop(image, plan)
    top, left = round(center[0] - 50), round(center[1] - 50)
    for i, j in ((0, 0), (50, 50), (99, 99), (0, 99)):
        y, x = top + i, left + j
        inside = 0 <= y < 128 and 0 <= x < 128
        assert cut[i, j] == (image[y, x] if inside else 0)
