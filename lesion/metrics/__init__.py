"""Scores with intervals: slices and patients, ROC and labelling curves, calibration, comparisons, readers.

Patients, not slices, are the independent units: the slices of one patient show one lesion and share one
label. Every interval here therefore resamples, or averages over, units no smaller than a patient.

All scores are fractions in [0, 1]; label 1 (glioma) is the positive class; a slice or patient is called
glioma where its probability is above ½ (strictly, as Keras' `binary_accuracy` and an argmax over two classes
do). A score that the data do not define (an AUC with one class) is NaN, never a made-up number.
"""

from lesion.metrics.calibration import Reliability, calibration_error, calibration_scores, reliability
from lesion.metrics.compare import DeLong, McNemar, common, delong, differences, holm, mcnemar
from lesion.metrics.curves import Band, mean_band, paired_difference, roc_points
from lesion.metrics.intervals import LEVEL, wilson
from lesion.metrics.readers import against_reader, reader_scores
from lesion.metrics.scores import SCORES, THRESHOLD, evaluate, patient_means

__all__ = [
    "LEVEL",
    "SCORES",
    "THRESHOLD",
    "Band",
    "DeLong",
    "McNemar",
    "Reliability",
    "against_reader",
    "calibration_error",
    "calibration_scores",
    "common",
    "delong",
    "differences",
    "evaluate",
    "holm",
    "mcnemar",
    "mean_band",
    "paired_difference",
    "patient_means",
    "reader_scores",
    "reliability",
    "roc_points",
    "wilson",
]
