"""Simulates the MR scanner: signal equations, relaxation times at 3 T, and the pixels made from a signal.

Relaxation times at 3 T (ms): grey 1331/110 and white matter 832/79.6 (T1/T2; Wansapura 1999, J Magn Reson Imaging
9:531); muscle 1412/50 and blood 1932/275 (Stanisz 2005, Magn Reson Med 54:507); subcutaneous fat 382/68 and marrow
586/49 (de Bazelaire 2004, Radiology 230:652); CSF T1 about 4300 at any field (Rooney 2007, Magn Reson Med 57:308), T2
about 2000. Lesion tissue varies more than any table says; the values lie in the ranges reported for oedema and glioma
(both long, e.g. Oh 2005, J Magn Reson Imaging 21:701, for T2), and inflamed cortex gets the same medium-sized change,
so that brightness alone does not give the diagnosis away.

How far these were checked against the papers (2026-11): fat, marrow and r1 of gadobutrol at 3 T, against the
abstracts; T1 of grey and white matter, against another program's rounded copy. The rest, r2 among it, is quoted from
memory, and the lesions' values are assumptions.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft

# Gadobutrol in plasma, 37 °C, 3 T, per s and mmol/l (Rohrer 2005, Invest Radiol 40:715; r1 also Szomolanyi 2019).
RELAXIVITY_R1, RELAXIVITY_R2 = 5.0, 7.1


class Tissue(NamedTuple):
    """A tissue's proton density relative to water, T1 and T2 in ms."""

    density: float
    t1_ms: float
    t2_ms: float


TISSUE = {
    "csf": Tissue(1.00, 4300.0, 2000.0),
    "gm": Tissue(0.82, 1331.0, 110.0),
    "wm": Tissue(0.70, 832.0, 79.6),
    "fat": Tissue(0.90, 382.0, 68.0),
    "muscle": Tissue(0.75, 1412.0, 50.0),
    "marrow": Tissue(0.60, 586.0, 49.0),
    "vessel": Tissue(0.85, 1932.0, 275.0),
    "oedema": Tissue(0.86, 1500.0, 200.0),
    "tumour": Tissue(0.86, 1600.0, 180.0),
    "necrosis": Tissue(0.96, 3400.0, 600.0),
    "inflamed": Tissue(0.87, 1550.0, 195.0),
}
FAT_T2_IN_ECHO_TRAIN_MS = 130.0  # closely spaced refocusing suppresses J-coupling: fat is bright on fast spin echo


class Pulse(NamedTuple):
    """The timing of a pulse sequence.

    Attributes:
        kind: "se" spin echo, "ir" inversion recovery spin echo, "gre" spoiled gradient echo.
        repetition_ms: TR in ms.
        echo_ms: TE in ms.
        inversion_ms: TI in ms, 0 without inversion.
        flip_deg: flip angle in degrees.
        echo_train: echoes per excitation.
    """

    kind: str
    repetition_ms: float
    echo_ms: float
    inversion_ms: float = 0.0
    flip_deg: float = 90.0
    echo_train: int = 1


def relaxed_by_gadolinium(t1_ms: np.ndarray | float, t2_ms: np.ndarray | float, millimolar: np.ndarray | float):
    """Returns T1 and T2 (ms) with contrast agent, 1/T = 1/T₀ + r·c; any shapes that broadcast."""
    t1 = 1 / (1 / np.asarray(t1_ms) + RELAXIVITY_R1 * np.asarray(millimolar) / 1000)
    t2 = 1 / (1 / np.asarray(t2_ms) + RELAXIVITY_R2 * np.asarray(millimolar) / 1000)
    return t1, t2


def signal(pulse: Pulse, density, t1_ms, t2_ms):
    """Returns the magnitude of the steady-state signal, in units of water's full magnetisation; arguments broadcast.

    Spin echo: ρ (1 − e^{−TR/T1}) e^{−TE/T2}; inversion recovery: ρ |1 − 2 e^{−TI/T1} + e^{−TR/T1}| e^{−TE/T2};
    spoiled gradient echo: ρ sin α (1 − E1) / (1 − cos α E1) e^{−TE/T2}, with T2 in place of T2* (TE is 2-3 ms).
    """
    e1 = np.exp(-pulse.repetition_ms / np.asarray(t1_ms))
    if pulse.kind == "ir":
        longitudinal = np.abs(1 - 2 * np.exp(-pulse.inversion_ms / np.asarray(t1_ms)) + e1)
    elif pulse.kind == "gre":
        flip = np.deg2rad(pulse.flip_deg)
        longitudinal = np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1)
    else:
        longitudinal = 1 - e1
    return density * longitudinal * np.exp(-pulse.echo_ms / np.asarray(t2_ms))


def tissue_signal(pulse: Pulse, name: str, millimolar: np.ndarray | float = 0.0):
    """Returns the signal of a row of `TISSUE` with gadolinium in it, `millimolar` of any shape."""
    density, t1_ms, t2_ms = TISSUE[name]
    if name == "fat" and pulse.echo_train > 1:
        t2_ms = FAT_T2_IN_ECHO_TRAIN_MS
    return signal(pulse, density, *relaxed_by_gadolinium(t1_ms, t2_ms, millimolar))


def acquire(
    rng: np.random.Generator,
    image: np.ndarray,
    size: int,
    phase_lines: int,
    noise: float,
    sensitivity: np.ndarray,
    shift: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Returns the stored images of ideal slices: from truncated, zero-filled k-space with noise in both channels.

    Args:
        rng: generator of the noise.
        image: float32 [Z, M, M], ideal signal.
        size: stored matrix, at least M, to which k-space is padded (as scanners interpolate 256 to 512).
        phase_lines: acquired lines, at most M; fewer make rows less sharp than columns.
        noise: standard deviation of each channel, in units of the signal.
        sensitivity: float32 [Z, M, M], sensitivity of the receive coil.
        shift: rows and columns that the patient has moved, in pixels of `image`.

    Returns:
        float32 [Z, size, size], magnitudes; the noise is Rician, correlated by the zero-filling as in a real image.
    """
    assert image.shape == sensitivity.shape and image.ndim == 3, (image.shape, sensitivity.shape)
    matrix = image.shape[-1]
    frequency = np.fft.fftfreq(matrix) * matrix
    lines, samples = frequency[:, None], frequency[None]
    window = _fermi(np.abs(lines), phase_lines / 2 - 2) * _fermi(np.abs(samples), matrix / 2 - 2)
    ramp = np.exp(-2j * np.pi / matrix * (lines * shift[0] + samples * shift[1])).astype(np.complex64)
    window = window.astype(np.float32) * ramp
    low, high = matrix // 2, size - matrix // 2
    out = np.empty((len(image), size, size), np.float32)
    for k, ideal in enumerate(image):
        in_phase, quadrature = rng.standard_normal((2, matrix, matrix), np.float32) * np.float32(noise)
        space = fft.fft2(ideal * sensitivity[k] + in_phase + 1j * quadrature) * window
        padded = np.zeros((size, size), np.complex64)
        padded[:low, :low], padded[:low, high:] = space[:low, :low], space[:low, low:]
        padded[high:, :low], padded[high:, high:] = space[low:, :low], space[low:, low:]
        out[k] = np.abs(fft.ifft2(padded)) * (size / matrix) ** 2
    return out


def _fermi(frequency: np.ndarray, cutoff: float) -> np.ndarray:
    """Returns a window with a soft edge in k-space, as scanners apply against ringing."""
    return 1 / (1 + np.exp(np.clip((frequency - cutoff) / 3.0, -50, 50)))
