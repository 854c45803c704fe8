"""Simulates the scan of one patient: the pixels of every series and the area of lesion in each slice."""

from typing import NamedTuple

import numpy as np

from lesion.phantom import anatomy, lesions, scanner
from lesion.phantom.scanner import Pulse

THICKNESS_MM, GAP_MM = 5.0, 1.5
TILT_DEG = -8.0  # of the slices about the left-right axis
VISIBLE_MM2 = 60.0  # least area of a lesion that is seen in a slice
VESSEL_MILLIMOLAR = 0.8  # blood, some minutes after the injection
CHANGED = 0.35  # share of a voxel that counts as lesion
WHITE_SIGNAL = {"flair": 0.42, "ce_t1wi": 0.48, "t2wi": 0.58}  # displayed as white; fixed: no lesion dims a brain
SIMULATED = tuple(WHITE_SIGNAL)  # sequences of a phantom

# Series of each vendor in the order scanned; the contrast protocol (agent, dose, delay) is the same for all.
PROTOCOLS: dict[str, tuple[tuple[str, Pulse], ...]] = {
    "GE MEDICAL SYSTEMS": (
        ("t2wi", Pulse("se", 4600, 102, echo_train=18)),
        ("flair", Pulse("ir", 9000, 122, 2450, echo_train=20)),
        ("ce_t1wi", Pulse("gre", 250, 2.6, flip_deg=70)),
        ("ce_t1wi", Pulse("se", 600, 10)),
    ),
    "SIEMENS": (
        ("t2wi", Pulse("se", 4800, 98, echo_train=16)),
        ("flair", Pulse("ir", 9000, 118, 2470, echo_train=18)),
        ("ce_t1wi", Pulse("gre", 260, 2.5, flip_deg=70)),
        ("ce_t1wi", Pulse("se", 620, 9)),
    ),
    # The other site's: shorter echoes of T2WI, longer ones of FLAIR, spin echoes before gradient echoes for T1WI.
    "Philips Medical Systems": (
        ("t2wi", Pulse("se", 3000, 80, echo_train=15)),
        ("flair", Pulse("ir", 11000, 140, 2800, echo_train=27)),
        ("ce_t1wi", Pulse("se", 500, 12)),
        ("ce_t1wi", Pulse("gre", 230, 2.3, flip_deg=80)),
    ),
}


class ScanPlan(NamedTuple):
    """Settings of a patient's scan, which the plan of the cohort balances within each class.

    Attributes:
        num_slices: slices of every series.
        matrix: stored rows and columns.
        acquired: acquired matrix, `matrix` or half of it.
        phase_lines: acquired lines.
        fov_mm: width of the field of view in mm.
        noise: standard deviation of a channel, in units of water's signal.
        bias: strength of the coil's shading, as a share of the signal.
        gain: stored units per unit of signal.
        vendor: key of `PROTOCOLS`.
        num_series: number of series of the protocol that are scanned.
    """

    num_slices: int
    matrix: int
    acquired: int
    phase_lines: int
    fov_mm: float
    noise: float
    bias: float
    gain: float
    vendor: str
    num_series: int


class Series(NamedTuple):
    """A simulated series: "flair", "ce_t1wi" or "t2wi", its timing, and its pixels, uint16 [Z, size, size]."""

    sequence: str
    pulse: Pulse
    pixels: np.ndarray


class Scan(NamedTuple):
    """The simulated scan of a patient.

    Attributes:
        series: series in the order scanned.
        z_mm: [Z], heights of the slices in mm.
        area_mm2: [Z], area of lesion in each slice in mm².
        enhancing_mm2: [Z], area of visibly enhancing tissue in each slice in mm².
    """

    series: list[Series]
    z_mm: np.ndarray
    area_mm2: np.ndarray
    enhancing_mm2: np.ndarray


def scan_patient(seed: tuple[int, ...], case: lesions.Case, plan: ScanPlan, needed: int) -> Scan:
    """Simulates all series of a patient.

    Args:
        seed: seed of anatomy, noise and position.
        case: the disease, enlarged until `needed` slices show it.
        plan: settings of the scan.
        needed: least number of slices that must show the lesion.
    """
    rng = np.random.default_rng(seed)
    atlas = anatomy.load_atlas()
    z_mm = (np.arange(plan.num_slices) - plan.num_slices / 2) * (THICKNESS_MM + GAP_MM) + 12 + rng.uniform(-3, 3)
    offsets = np.array([-1, 0, 1]) * THICKNESS_MM / 3  # three sub-slices: partial volume across the slice
    grid = anatomy.Grid((z_mm[:, None] + offsets).ravel().astype(np.float32), plan.fov_mm, plan.acquired)
    shape = anatomy.draw_shape(rng)
    healthy = anatomy.to_template(rng, grid, shape)
    shells = anatomy.sample_shells(atlas, healthy)
    pixel_mm2 = (plan.fov_mm / plan.acquired) ** 2
    voxel_ml = pixel_mm2 * (THICKNESS_MM + GAP_MM) / len(offsets) / 1000
    points = lesions.centres(case, atlas)
    for _ in range(6):
        pushed = lesions.displace(case, points, healthy, shells[0])
        brain = anatomy.sample_brain(atlas, grid, pushed, shells[0], shape)
        lesion = lesions.grow(case, points, grid, healthy, pushed, brain, voxel_ml)
        area_mm2 = _averaged((lesion.fraction.sum(0) > CHANGED).astype(np.float32)).sum((1, 2)) * pixel_mm2
        if (area_mm2 >= VISIBLE_MM2).sum() >= needed:
            break
        case = case._replace(volume_ml=case.volume_ml * 1.2, radius_mm=case.radius_mm * 1.05)
    else:
        raise RuntimeError(f"{case} does not reach {needed} slices: {area_mm2.round()}")
    middle = grid._replace(z_mm=grid.z_mm[1::3])
    head = anatomy.complete_head(rng, middle, healthy[:, 1::3], shells[:, 1::3], shape, _averaged(brain))
    head *= 1 - _averaged(lesion.fraction.sum(0))
    fraction, sensitivity = _averaged(lesion.fraction), _coil_sensitivity(rng, middle, plan.bias)
    series = []
    for sequence, pulse in PROTOCOLS[plan.vendor][: plan.num_series]:
        ideal = _ideal(pulse, sequence == "ce_t1wi", head, fraction, lesion)
        shift = rng.normal(0, 0.6, 2)
        noise = plan.noise * (0.6 if sequence == "flair" else 1.0)  # FLAIR has half the signal and is averaged
        image = scanner.acquire(rng, ideal, plan.matrix, plan.phase_lines, noise, sensitivity, (shift[0], shift[1]))
        series.append(Series(sequence, pulse, np.clip(np.round(image * plan.gain), 0, 4000).astype(np.uint16)))
    enhancing = _averaged((lesion.millimolar > 0.08).astype(np.float32)).sum((1, 2)) * pixel_mm2
    return Scan(series, z_mm, area_mm2, enhancing)


def _averaged(fine: np.ndarray) -> np.ndarray:
    """Returns the mean over the sub-slices, [..., 3 Z, M, M] -> [..., Z, M, M]."""
    return fine.reshape(*fine.shape[:-3], -1, 3, *fine.shape[-2:]).mean(-3)


def _ideal(pulse: Pulse, contrast: bool, head: np.ndarray, fraction: np.ndarray, lesion: lesions.Lesion) -> np.ndarray:
    """Returns the signal of all tissues, weighted by their share of the voxel, float32 [Z, M, M]."""
    blood = VESSEL_MILLIMOLAR if contrast else 0.0
    out = np.zeros(head.shape[1:], np.float32)
    for name, share in zip(anatomy.TISSUES, head, strict=True):
        # Blood flows out of the slice between excitation and a late echo: dark on spin echoes.
        flow = 0.15 if name == "vessel" and pulse.echo_ms > 20 else 1.0
        out += share * np.float32(flow * scanner.tissue_signal(pulse, name, blood if name == "vessel" else 0.0))
    for k, name in enumerate(lesions.TISSUES):
        out += fraction[k] * np.float32(scanner.tissue_signal(pulse, name))
        if contrast:
            enhanced = (lesion.millimolar > 0) & (lesion.fraction[k] > 0)
            gain = np.zeros_like(lesion.millimolar)
            before, after = scanner.tissue_signal(pulse, name), lesion.millimolar[enhanced]
            gain[enhanced] = lesion.fraction[k][enhanced] * (scanner.tissue_signal(pulse, name, after) - before)
            out += _averaged(gain)
    return out


def _coil_sensitivity(rng: np.random.Generator, grid: anatomy.Grid, strength: float) -> np.ndarray:
    """Draws the shading of the receive coil, smooth, mean about 1, float32 [Z, M, M]."""
    x, y, z = (axis / 90 for axis in grid.coarse())
    terms = (x, y, z, x * y, y * z, x * x - 0.3, y * y - 0.3)
    field = sum(float(rng.normal(0, 0.5)) * term for term in terms)
    return grid.upsample(np.exp(strength * np.clip(field, -1.5, 1.5)).astype(np.float32))
