"""Simulates encephalitis and glioma: their site, mass effect, swelling, oedema and enhancement.

The two classes have the same volumes, extents, relaxation times and amounts of contrast agent on purpose: only the
pattern tells them apart. Glioma is a mass centred in white matter, which displaces its surroundings,
with oedema that follows the white matter and a ring or patches of enhancement. Encephalitis follows the limbic
cortex (hippocampus, amygdala, temporal pole, insula, cingulate gyrus), often on both sides, swells without a mass
and enhances thinly along gyri.

An atypical case borrows from the other class: an infiltrating glioma of the cortex without ring or necrosis, a
one-sided encephalitis that extends into the white matter and enhances in patches.

Coordinates are MNI millimetres (RAS) in template space; arrays of the slice lattice are as in `anatomy`.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from lesion.phantom import anatomy
from lesion.phantom.anatomy import smooth_noise, smoothstep

TISSUES = ("oedema", "tumour", "necrosis", "inflamed")
MAX_MILLIMOLAR = 0.6  # of gadolinium in tissue, some minutes after 0.1 mmol/kg

# Limbic cortex in MNI space: (|x|, y, z) of the centre and three radii, mm.
SITES = {
    "hippocampus": ((27, -20, -17), (13, 24, 13)),
    "amygdala": ((24, -3, -20), (13, 12, 12)),
    "temporal_pole": ((35, 12, -32), (15, 15, 16)),
    "insula": ((39, 4, 2), (10, 24, 19)),
    "orbitofrontal": ((16, 28, -16), (14, 18, 10)),
    "anterior_cingulate": ((6, 34, 16), (9, 18, 20)),
    "middle_cingulate": ((7, -4, 37), (9, 30, 14)),
}
# Rows of (range of z of a glioma's centre, combinations of sites of an encephalitis at that height). Both classes lie
# at the same heights, so that the height of a slice carries no information about the class.
BANDS = (
    (
        (-30.0, -14.0),
        (("hippocampus", "amygdala", "temporal_pole", "insula"), ("hippocampus", "amygdala", "insula")),
    ),
    ((-16.0, 2.0), (("hippocampus", "amygdala", "insula"), ("amygdala", "insula", "orbitofrontal"))),
    (
        (4.0, 26.0),
        (("insula", "anterior_cingulate", "middle_cingulate"), ("anterior_cingulate", "middle_cingulate")),
    ),
)


class Case(NamedTuple):
    """The disease of one patient.

    Attributes:
        label: "encephalitis" or "glioma".
        atypical: 0 for a textbook case to 1 for one that borrows from the other class.
        band: index of the row of `BANDS`.
        side: worse side, -1 left, +1 right.
        other_side: encephalitis: involvement of the other side, 0 to 1.
        volume_ml: volume of all tissue that is bright on FLAIR.
        gadolinium: integral of the concentration, mmol/l × ml.
        radius_mm: glioma: radius of the solid part.
        level: greatest share of a voxel's tissue that is changed.
        seed: seed of position and textures.
    """

    label: str
    atypical: float
    band: int
    side: int
    other_side: float
    volume_ml: float
    gadolinium: float
    radius_mm: float
    level: float
    seed: int


class Lesion(NamedTuple):
    """The tissue that a case changes, on the sub-slices of the scan.

    Attributes:
        fraction: float32 [4, Z, M, M], shares of `TISSUES`; healthy tissue keeps 1 − their sum.
        millimolar: float32 [Z, M, M], concentration of gadolinium.
    """

    fraction: np.ndarray
    millimolar: np.ndarray


def draw_case(rng: np.random.Generator, label: str, band: int, atypical: bool) -> Case:
    """Draws a patient's disease; volumes and amounts come from the same distributions in both classes."""
    return Case(
        label=label,
        atypical=rng.uniform(0.75, 1.0) if atypical else rng.uniform(0.0, 0.2),
        band=band,
        side=int(rng.choice([-1, 1])),
        other_side=float(rng.uniform(0.7, 1.0) * (rng.random() < (0.25 if atypical else 0.92))),
        volume_ml=float(np.exp(rng.normal(np.log(115), 0.2))),
        gadolinium=float(np.exp(rng.normal(np.log(3.5), 0.25))),
        radius_mm=float(rng.uniform(18, 24)),
        level=float(rng.uniform(0.8, 1.0)),
        seed=int(rng.integers(2**31)),
    )


def centres(case: Case, atlas: anatomy.Atlas) -> np.ndarray:
    """Returns the centre of a glioma (n = 1) or of the sites of an encephalitis, worse side first, float32 [n, 3]."""
    rng = np.random.default_rng([case.seed, 1])
    heights, combinations = BANDS[case.band]
    if case.label == "glioma":
        return _white_matter_point(rng, atlas, case.side, rng.uniform(*heights))[None]
    names = combinations[rng.integers(len(combinations))]
    points = np.array([SITES[name][0] for name in names], np.float32)
    return np.concatenate([points * [case.side, 1, 1], points * [-case.side, 1, 1]]).astype(np.float32)


def _white_matter_point(rng: np.random.Generator, atlas: anatomy.Atlas, side: int, height: float) -> np.ndarray:
    """Draws a point well inside the cerebral white matter of one side at a height, float32 [3]."""
    level = round(height - anatomy.ORIGIN_MM[2])
    white = ndimage.uniform_filter(atlas.tissue[2, :, :, level - 3 : level + 4].mean(2), 9) / 255
    x = np.arange(white.shape[0])[:, None] + anatomy.ORIGIN_MM[0]
    y = np.arange(white.shape[1])[None] + anatomy.ORIGIN_MM[1]
    allowed = (x * side > (30 if height < -8 else 18)) & (y > (-42 if height < -8 else -75))
    white = np.where(allowed, white, 0)
    indices = np.argwhere(white > 0.85 * white.max())
    index = indices[rng.integers(len(indices))]
    return np.array([*(index + anatomy.ORIGIN_MM[:2]), height], np.float32)


def displace(case: Case, points: np.ndarray, mapped: np.ndarray, brain_mm: np.ndarray) -> np.ndarray:
    """Returns template coordinates after displacement by the lesion, float32 [3, Z, m, m].

    Args:
        case: the disease.
        points: result of `centres`.
        mapped: float32 [3, Z, m, m], healthy template coordinates.
        brain_mm: float32 [Z, m, m], signed distance to the brain's surface; the skull does not yield.
    """
    if case.label == "glioma":
        pushes = [(points[0], case.radius_mm, 0.6 * case.radius_mm * (1 - 0.75 * case.atypical), 32.0)]
    else:  # each site swells a little, without a mass
        half = len(points) // 2
        weights = [1.0] * half + [case.other_side] * half
        swelling = 2.0 + 1.5 * case.atypical
        pushes = [(point, 11.0, weight * swelling, 14.0) for point, weight in zip(points, weights, strict=True)]
    softness = smoothstep(-brain_mm, -1.0, 12.0)
    for centre, radius, push, reach in pushes:
        away = mapped - centre[:, None, None, None]
        distance = np.sqrt((away**2).sum(0)) + 1e-3
        decay = np.exp(-np.maximum(distance - radius, 0) / reach)
        mapped = mapped - away / distance * (push * np.minimum(distance / radius, 1) * decay * softness)
    return mapped


def grow(
    case: Case,
    points: np.ndarray,
    grid: anatomy.Grid,
    before: np.ndarray,
    after: np.ndarray,
    brain: np.ndarray,
    voxel_ml: float,
) -> Lesion:
    """Lays the lesion into the displaced brain.

    Args:
        case: the disease.
        points: result of `centres`.
        grid: lattice of the scan.
        before: float32 [3, Z, m, m], template coordinates without displacement, in which a mass is round.
        after: float32 [3, Z, m, m], template coordinates with displacement, which locate the cortex.
        brain: float32 [3, Z, M, M], CSF, grey and white matter after displacement.
        voxel_ml: volume of one element of a sub-slice, in ml.
    """
    rng = np.random.default_rng([case.seed, 2])
    noise = [grid.upsample(smooth_noise(rng, before.shape[1:], s)) for s in ((4, 3, 3), (2, 1.5, 1.5), (1.2, 0.8, 0.8))]
    # A ribbon of cortex is less high than a mass, so it needs a little less volume for the same area in a chosen slice.
    num_voxels = int(case.volume_ml * (1.0 if case.label == "glioma" else 0.88) / voxel_ml)
    if case.label == "glioma":
        fraction, pattern = _glioma(case, points[0], grid, before, brain, noise, num_voxels)
    else:
        fraction, pattern = _encephalitis(case, points, grid, after, brain, noise, num_voxels)
    return Lesion(fraction, _concentration(pattern, case, voxel_ml))


def _glioma(
    case: Case,
    centre: np.ndarray,
    grid: anatomy.Grid,
    before: np.ndarray,
    brain: np.ndarray,
    noise: list[np.ndarray],
    num_voxels: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the fractions of `TISSUES`, float32 [4, Z, M, M], and the pattern of enhancement, 0 to 1, [Z, M, M]."""
    rng = np.random.default_rng([case.seed, 3])
    csf, grey, white = brain
    away = before - centre[:, None, None, None]
    stretch = rng.uniform(0.85, 1.15, 3) * [1.05, 1.0, 0.85]  # longer in height, as Table 1's numbers of slices suggest
    away = away * stretch[:, None, None, None].astype(np.float32)
    depth = grid.upsample(np.sqrt((away**2).sum(0)) - case.radius_mm) + 2.6 * noise[0] + 1.0 * noise[1]
    solid = (1 - csf).clip(0) * smoothstep(brain.sum(0), 0.3, 0.9)
    core = smoothstep(depth, 1.0, -1.0) * (solid * (1 - case.atypical) + (0.65 * solid * case.atypical))
    wall = rng.uniform(4.0, 6.0) * (1 + 0.25 * noise[1])
    ring = rng.random() < 0.85 and case.atypical < 0.5
    necrosis = smoothstep(depth + wall, 0.5, -2.0) * core * (1.0 if ring else 0.0)
    # Oedema spreads along white matter: any other tissue counts as 20 mm of distance. The threshold is the one that
    # gives the volume of the case.
    reach = depth + (1 - ndimage.gaussian_filter(white, (0, 1.5, 1.5))) * (20 - 12 * case.atypical) + 2.5 * noise[0]
    limit = _threshold(np.where(core > 0.5, -1e3, np.where((white + grey > 0.6), reach, 1e3)), num_voxels)
    oedema = smoothstep(reach, limit + 1.5, limit - 4.0) * (white + (0.12 + 0.5 * case.atypical) * grey) * (1 - core)
    fraction = np.stack([oedema * case.level, core - necrosis, necrosis, np.zeros_like(core)])
    if ring:
        shell = smoothstep(depth + wall, -0.5, 1.0) * smoothstep(noise[1], -1.6, -0.2)
    else:
        shell = smoothstep(noise[1] + 0.5 * noise[2], 0.6, 1.4) * smoothstep(depth, 2, -3)
    return fraction, core * (1 - necrosis) * shell


def _encephalitis(
    case: Case,
    points: np.ndarray,
    grid: anatomy.Grid,
    after: np.ndarray,
    brain: np.ndarray,
    noise: list[np.ndarray],
    num_voxels: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns fractions and pattern of enhancement as `_glioma` does."""
    csf, grey, white = brain
    radii = {site[0]: site[1] for site in SITES.values()}
    score: np.ndarray = np.full(after.shape[1:], -9.0, np.float32)
    for k, point in enumerate(points):
        radius = np.array(radii[(int(abs(point[0])), int(point[1]), int(point[2]))], np.float32)
        away = (after - point[:, None, None, None]) / radius[:, None, None, None]
        share = 1.0 if 2 * k < len(points) else case.other_side
        if share:
            score = np.maximum(score, share + (1 - share) * 0.2 - np.sqrt((away**2).sum(0)))
    score = grid.upsample(score) + 0.10 * noise[0] + 0.06 * noise[1]
    ribbon = ndimage.gaussian_filter(grey, (0, 1.0, 1.0))
    reach = (1 - ribbon) * (1.0 - 0.6 * case.atypical) - score
    limit = _threshold(np.where(grey + white > 0.5, reach, 1e3), num_voxels)
    spill = 0.2 + 0.6 * case.atypical
    inflamed = smoothstep(reach, limit + 0.12, limit - 0.25) * (grey + spill * white) * case.level
    # Swollen gyri fill their sulci.
    swelling = smoothstep(reach, limit + 0.3, limit - 0.2) * csf * 0.6 * (score > -0.3)
    fraction = np.zeros((len(TISSUES), *grey.shape), np.float32)
    fraction[3] = np.minimum(inflamed + swelling, 1)
    edge = ndimage.gaussian_filter(csf, (0, 1.2, 1.2))
    gyriform = inflamed * smoothstep(edge, 0.06, 0.3) * smoothstep(noise[1], -0.6, 0.5)
    patches = inflamed * smoothstep(noise[1] + 0.5 * noise[2], 0.6, 1.4)
    return fraction, gyriform * (1 - case.atypical) + patches * case.atypical


def _threshold(reach: np.ndarray, count: int) -> float:
    """Returns the value below which `count` elements lie."""
    flat = reach.ravel()
    return float(np.partition(flat, count)[count])


def _concentration(pattern: np.ndarray, case: Case, voxel_ml: float) -> np.ndarray:
    """Returns a pattern (0 to 1) scaled to mmol/l, so that its integral is the case's amount, cut at the maximum."""
    amount = float(pattern.sum()) * voxel_ml
    return np.minimum(pattern * np.float32(case.gadolinium / max(amount, 1e-3)), MAX_MILLIMOLAR).astype(np.float32)
