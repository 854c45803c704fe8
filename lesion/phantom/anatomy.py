"""Makes a head for every phantom patient: the ICBM152 brain, deformed, in a synthetic skull and scalp.

The maps are nilearn's ICBM152 2009a symmetric template (Fonov 2009, NeuroImage 47:S102): T1, grey- and white-matter,
1 mm, already without skull. Tissue outside the brain is built from distances to it. Everything is evaluated on the
scan's own slice lattice, so a patient costs one interpolation of the maps.

Coordinates are MNI millimetres, RAS: x to the right, y to the front, z up.
"""

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from scipy import ndimage

ORIGIN_MM = np.array([-98.0, -134.0, -72.0], np.float32)  # centre of voxel 0 of the 1 mm maps
MARGIN_MM = 42  # by which the distance maps exceed the brain maps on every side
COARSE_MM = 3  # voxel size of the distance maps
FRONT_MM = -18.0  # y of the centre of the field of view
TISSUES = ("csf", "gm", "wm", "fat", "muscle", "marrow", "vessel")  # the rest of a voxel is air and bone: no signal


class Atlas(NamedTuple):
    """Template maps that all patients share.

    Attributes:
        tissue: uint8 [3, X, Y, Z], 1 mm: fraction × 255 of CSF, grey and white matter.
        shell: float32 [3, X', Y', Z'], 3 mm with a margin: signed distance in mm (positive outside) to the brain,
            to the cavity of the skull, and to the head without scalp.
    """

    tissue: np.ndarray
    shell: np.ndarray


class Grid(NamedTuple):
    """The lattice of sub-slices of one scan, in the patient's head frame.

    Attributes:
        z_mm: float32 [Z], heights of the sub-slices in mm.
        fov_mm: width of the square field of view in mm.
        matrix: M, pixels per side; coarse fields have m = M // 4, and `upsample` interpolates them.
    """

    z_mm: np.ndarray
    fov_mm: float
    matrix: int

    def axis_mm(self, size: int) -> np.ndarray:
        """Returns centres of `size` pixels across the field of view, float32 [size], mm, right or front first."""
        step = self.fov_mm / size
        return (self.fov_mm / 2 - step * (np.arange(size, dtype=np.float32) + 0.5)).astype(np.float32)

    def coarse(self) -> np.ndarray:
        """Returns x, y, z in mm of the coarse lattice, float32 [3, Z, m, m]."""
        axis = self.axis_mm(self.matrix // 4)
        z, y, x = np.meshgrid(self.z_mm, axis + np.float32(FRONT_MM), axis, indexing="ij")
        return np.stack([x, y, z])

    def upsample(self, coarse: np.ndarray) -> np.ndarray:
        """Interpolates linearly within the slice, [..., Z, m, m] -> [..., Z, M, M]."""
        size = self.matrix // 4
        position = np.clip((np.arange(self.matrix, dtype=np.float32) + 0.5) / 4 - 0.5, 0, size - 1)
        low = np.minimum(position.astype(int), size - 2)
        weight = position - low.astype(np.float32)
        wide = coarse[..., low] + weight * (coarse[..., low + 1] - coarse[..., low])
        step = np.diff(wide, axis=-2)
        fine = step[..., low, :]
        fine *= weight[:, None]
        fine += wide[..., low, :]
        return fine


class Shape(NamedTuple):
    """The differences between one patient's head and the template.

    Attributes:
        matrix: float32 [3, 3], affine map from the head to the template.
        shift_mm: float32 [3], translation of that map in mm.
        ventricle: enlargement of the ventricles, as an outward shift of their walls in mm.
        sulcus: width of the sulci, 0 narrow to 1 wide.
        skull_mm: thickness of the bone in mm.
        scalp_mm: thickness of the soft tissue on the bone in mm.
    """

    matrix: np.ndarray
    shift_mm: np.ndarray
    ventricle: float
    sulcus: float
    skull_mm: float
    scalp_mm: float


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns 0 below `low`, 1 above `high` (or the reverse when high < low), smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float | tuple[float, ...]) -> np.ndarray:
    """Draws Gaussian noise, float32 `shape`, smoothed by `sigma` (voxels) and rescaled to unit variance."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma, mode="wrap")
    return noise / (noise.std() + 1e-6)


@functools.cache
def load_atlas() -> Atlas:
    """Reads nilearn's maps and builds the distance maps (about two seconds, once per process)."""
    nilearn = importlib.util.find_spec("nilearn")  # importing it would take longer than all that follows
    assert nilearn is not None and nilearn.origin is not None
    folder = Path(nilearn.origin).parent / "datasets" / "data"

    def read(kind: str) -> np.ndarray:
        path = folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
        return np.asarray(nibabel.load(path).dataobj, np.float32)  # type: ignore[attr-defined]

    t1, gm, wm = read("t1"), read("gm") / 255, read("wm") / 255
    brain = ndimage.binary_fill_holes(t1 > 0)
    # The averaged grey-matter map covers the sulci; T1 still shows their CSF (pure: grey 165, CSF 65).
    csf = np.maximum(1 - gm - wm, np.where(wm < 0.3, np.clip((158 - t1) / 90, 0, 1), 0)) * brain
    rest = np.where(gm + wm > 0, (1 - csf) / np.maximum(gm + wm, 1e-3), 0)
    tissue = np.round(255 * np.clip(np.stack([csf, gm * rest, wm * rest]), 0, 1)).astype(np.uint8)

    inside = np.pad(brain, MARGIN_MM)[::COARSE_MM, ::COARSE_MM, ::COARSE_MM]
    cavity = _closed(inside, 14)
    head = _closed(inside, 44)
    taper = ndimage.generate_binary_structure(2, 1)
    for level in range(head.shape[2] - 2, -1, -1):  # the head continues below the brain
        above = head[:, :, level + 1]
        if level * COARSE_MM - MARGIN_MM + ORIGIN_MM[2] < -10:
            head[:, :, level] |= ndimage.binary_erosion(above, taper) if level % 4 == 0 else above
    shell = np.stack([_signed_distance(mask) for mask in (inside, cavity, head)])
    return Atlas(tissue, ndimage.gaussian_filter(shell, (0, 1, 1, 1)))


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """Returns the distance to a mask's surface in mm, negative inside, float32."""
    outside, inside = ndimage.distance_transform_edt(~mask), ndimage.distance_transform_edt(mask)
    return ((outside - inside) * COARSE_MM).astype(np.float32)


def _closed(mask: np.ndarray, radius_mm: float) -> np.ndarray:
    """Returns a mask closed by a ball, by two distance transforms."""
    grown = ndimage.distance_transform_edt(~mask) * COARSE_MM <= radius_mm
    grown[0] = grown[-1] = grown[:, 0] = grown[:, -1] = grown[:, :, 0] = grown[:, :, -1] = False
    return ndimage.distance_transform_edt(grown) * COARSE_MM > radius_mm


def draw_shape(rng: np.random.Generator) -> Shape:
    """Draws one patient's affine (size ±4 %, turn ±3°, shear) and head measures."""
    turn = np.deg2rad(rng.normal(0, [2.0, 2.5, 2.5])).clip(-0.12, 0.12)
    skew = np.array([[0, -turn[2], turn[1]], [turn[2], 0, -turn[0]], [-turn[1], turn[0], 0]])
    matrix = (np.eye(3) + skew + rng.normal(0, 0.01, (3, 3))) * (1 + rng.normal(0, 0.035, (1, 3)).clip(-0.07, 0.07))
    return Shape(
        matrix.astype(np.float32),
        rng.normal(0, 2, 3).astype(np.float32),
        ventricle=rng.uniform(-1.0, 3.5),
        sulcus=rng.uniform(0.1, 0.9),
        skull_mm=rng.uniform(5.5, 8.5),
        scalp_mm=rng.uniform(5.0, 9.0),
    )


def to_template(rng: np.random.Generator, grid: Grid, shape: Shape) -> np.ndarray:
    """Returns the template coordinates of each coarse point of the scan, mm, float32 [3, Z, m, m].

    They result from an affine map, an elastic one, and one that widens the ventricles.
    """
    points = grid.coarse()
    mapped = np.tensordot(shape.matrix, points, 1) + shape.shift_mm[:, None, None, None]
    index = (mapped + 130) / 6  # a 6 mm lattice of ±130 mm for the elastic field
    for axis in range(3):
        field = 2.2 * smooth_noise(rng, (44, 50, 44), 3.2) + 1.3 * smooth_noise(rng, (44, 50, 44), 1.3)
        mapped[axis] += ndimage.map_coordinates(field, index, order=1, mode="grid-wrap", output=np.float32)
    centre = np.array([0, -15, 10], np.float32)[:, None, None, None]  # wider ventricles: the walls move outwards
    away = mapped - centre
    radius = np.sqrt((away[0] / 1.3) ** 2 + (away[1] / 1.8) ** 2 + away[2] ** 2) + 1e-3
    return mapped - away / radius * (shape.ventricle * np.exp(-(((radius - 8) / 14) ** 2)) * np.clip(radius / 6, 0, 1))


def sample_shells(atlas: Atlas, mapped: np.ndarray) -> np.ndarray:
    """Returns the distances (mm) to brain, skull cavity and head at coarse template points, float32 [3, Z, m, m]."""
    index = (mapped - (ORIGIN_MM - MARGIN_MM)[:, None, None, None]) / COARSE_MM
    return np.stack([ndimage.map_coordinates(shell, index, order=1, mode="nearest") for shell in atlas.shell])


def sample_brain(atlas: Atlas, grid: Grid, mapped: np.ndarray, brain_mm: np.ndarray, shape: Shape) -> np.ndarray:
    """Returns CSF, grey and white matter at the scan's full resolution, float32 [3, Z, M, M].

    Args:
        atlas: template maps.
        grid: lattice of the scan.
        mapped: float32 [3, Z, m, m], template coordinates of the coarse points, mm.
        brain_mm: float32 [Z, m, m], signed distance to the brain's surface.
        shape: the patient's `Shape`.
    """
    index = grid.upsample(mapped - ORIGIN_MM[:, None, None, None])
    near = grid.upsample(brain_mm) < 6  # a third of all points; no others can hold brain
    points = index[:, near]
    raw = np.zeros((3, *near.shape), np.float32)
    for channel, volume in zip(raw, atlas.tissue, strict=True):
        channel[near] = ndimage.map_coordinates(volume, points, order=1, mode="constant", output=np.float32)
    raw /= 255
    inside = np.clip(2 * raw.sum(0), 0, 1)
    # An average of 152 brains is blurred: steeper edges give each patient clear sulci of an individual width.
    csf = smoothstep(raw[0], 0.30 - 0.22 * shape.sulcus, 0.85 - 0.25 * shape.sulcus)
    white = smoothstep(raw[2] / np.maximum(raw[1] + raw[2], 1e-3), 0.15, 0.80)
    return np.stack([csf, (1 - csf) * (1 - white), (1 - csf) * white]) * inside


def complete_head(
    rng: np.random.Generator,
    grid: Grid,
    mapped: np.ndarray,
    shells: np.ndarray,
    shape: Shape,
    inner: np.ndarray,
) -> np.ndarray:
    """Returns the fractions of `TISSUES`, float32 [7, Z, M, M]: the brain, fluid, skull, scalp, orbits, airways.

    Args:
        rng: generator of the textures of muscle and marrow.
        grid: lattice of the scan.
        mapped: float32 [3, Z, m, m], template coordinates in mm.
        shells: float32 [3, Z, m, m], result of `sample_shells`.
        shape: the patient's `Shape`.
        inner: float32 [3, Z, M, M], result of `sample_brain`.
    """
    size = mapped.shape[1:]
    texture = grid.upsample(np.stack([smooth_noise(rng, size, (2.5, 2.0, 2.0)), smooth_noise(rng, size, (1.5, 1, 1))]))
    brain, cavity, head = grid.upsample(shells)
    x, y, z = grid.upsample(mapped)
    bone = shape.skull_mm
    skin = bone + shape.scalp_mm

    within = smoothstep(cavity, 1.0, 0.2)  # the cavity: fluid near the brain, bone of the skull base further away
    fluid = within * smoothstep(brain, 7.0, 5.0)
    vault = smoothstep(cavity, 0.2, 1.0) * smoothstep(cavity, bone + 0.6, bone)
    diploe = vault * smoothstep(np.abs(cavity - bone / 2), 0.33 * bone, 0.14 * bone) * (0.75 + 0.2 * texture[0])
    base = within * (1 - fluid) * smoothstep(texture[0], -0.3, 0.8)
    soft = smoothstep(cavity, bone, bone + 0.8) * smoothstep(head, skin + 0.4, skin - 0.4)
    subcutaneous = soft * smoothstep(head, bone + 0.8, bone + 1.8) * smoothstep(head, skin - 1.2, skin - 2.0)
    deep = soft * smoothstep(head, bone + 1.8, bone + 0.8)
    fatty = np.clip(smoothstep(texture[1], 0.3, 1.2), 0, 1)

    aside = np.abs(x)  # a ball in these coordinates is one on each side
    globe = _ball(aside, y, z, (32, 63, -39), 12)
    orbit = _ball(aside, y, z, (27.2, 54, -38), 17) * (cavity > bone * 0.6)
    airway = np.maximum(_ball(x, y * 0.55, z * 0.7, (0, 33, -40), 13), _ball(x, y, z, (0, 70, -14), 8)) * (cavity > 3)
    petrous = _ball(aside, y * 0.9, z, (52, -28, -44), 12)
    solid = (1 - airway) * (1 - petrous * (within < 0.5))
    sinus = _ball(x, cavity + 1.2, 0 * z, (0, 0, 0), 4.2) * smoothstep(y, -5, -30)  # superior sagittal
    carotid = _ball(aside, y, 0 * z, (13, 4, 0), 2.6) * smoothstep(z, -20, -26)
    basilar = _ball(x, y, 0 * z, (0, -13, 0), 2.0) * smoothstep(z, -14, -18) * smoothstep(z, -52, -46)
    vessel = np.clip(sinus + (carotid + basilar) * smoothstep(brain, 0.0, 0.6), 0, 1)

    out = np.zeros((len(TISSUES), *x.shape), np.float32)
    out[0] = np.maximum(fluid, globe) * (1 - vessel)
    out[3] = (subcutaneous + deep * fatty) * solid * (1 - orbit) + orbit * (1 - globe) * soft
    out[4] = (deep * (1 - fatty) + (soft - subcutaneous - deep).clip(0)) * solid * (1 - orbit)
    out[5] = (diploe + base * 0.5) * solid * (1 - vessel)
    out[6] = vessel
    np.clip(out, 0, 1, out)
    out *= 1 - inner.sum(0)
    out[:3] += inner
    return out


def _ball(x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """Returns 1 within a ball, 0 outside, with a smooth edge."""
    distance = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    return smoothstep(distance, radius + 0.6, radius - 0.6)
