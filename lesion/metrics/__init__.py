"""Scores with intervals: slices and patients, ROC and active-learning curves, calibration, comparisons, readers.

Patients, not slices, are the independent units: the slices of one patient show one lesion and share one
label. Every interval here therefore counts units no smaller than a patient, see `estimates`.

All scores are fractions in [0, 1]; label 1 (glioma) is the positive class; a slice or patient is called
glioma if its probability is above ½ (strictly, as in Keras' `binary_accuracy` and an argmax over two classes).
A score that the data do not define (an AUC with one class) is NaN.
"""

from lesion.metrics.active_curves import (
    Band,
    area_under_curve,
    cost_to_reach,
    mean_band,
    paired_difference,
    shared_budget,
)
from lesion.metrics.calibration import (
    Reliability,
    brier_parts,
    calibration_error,
    calibration_scores,
    recalibration,
    reliability,
    shifted,
)
from lesion.metrics.compare import (
    Comparison,
    DeLong,
    McNemar,
    common_patients,
    compare_models,
    delong,
    differences,
    holm,
    mcnemar,
    mean_scores,
)
from lesion.metrics.estimates import LEAST, THRESHOLD
from lesion.metrics.intervals import LEVEL, corrected_interval, wilson
from lesion.metrics.operating import (
    AIM,
    held_out_calls,
    net_benefit,
    operating_point,
    predictive_values,
    scores_of_calls,
    youden_threshold,
)
from lesion.metrics.readers import model_vs_reader, reader_scores
from lesion.metrics.scores import SCORES, evaluate, patient_means, roc_points

__all__ = [
    "AIM",
    "LEAST",
    "LEVEL",
    "SCORES",
    "THRESHOLD",
    "Band",
    "Comparison",
    "DeLong",
    "McNemar",
    "Reliability",
    "area_under_curve",
    "brier_parts",
    "calibration_error",
    "calibration_scores",
    "common_patients",
    "compare_models",
    "corrected_interval",
    "cost_to_reach",
    "delong",
    "differences",
    "evaluate",
    "held_out_calls",
    "holm",
    "mcnemar",
    "mean_band",
    "mean_scores",
    "model_vs_reader",
    "net_benefit",
    "operating_point",
    "paired_difference",
    "patient_means",
    "predictive_values",
    "reader_scores",
    "recalibration",
    "reliability",
    "roc_points",
    "scores_of_calls",
    "shared_budget",
    "shifted",
    "wilson",
    "youden_threshold",
]
