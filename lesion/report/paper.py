"""The paper's published numbers, which the report prints beside ours and never among them.

Li, Ye, Xu, Wu: "Identification of intracranial lesions based on feature transfer and active labeling", Journal of
Electronic Measurement and Instrumentation, DOI 10.13382/j.jemi.B2003774. Numbers are strings as printed there: they
were measured on other data, without intervals, and only `readers_implied` calculates with them.
"""

from typing import Any, NamedTuple

CITATION = (
    "Li, Ye, Xu, Wu: Identification of intracranial lesions based on feature transfer and active labeling. "
    "Journal of Electronic Measurement and Instrumentation, DOI 10.13382/j.jemi.B2003774"
)

TITLES = {"flair": "FLAIR", "ce_t1wi": "CE-T1WI", "t2wi": "T2WI"}
COHORT_PICTURES = {  # captions of a cohort's pictures, see `dataset.qc_figures`
    "preprocessing": "Fig. 1: slices before and after preprocessing: text in the corners removed, cropped to the "
    "head, resized to 224×224.",
    "cohort": "Slices of the cohort as the network sees them.",
}


class Row(NamedTuple):
    """A printed row: accuracy and F1 in per cent, AUC as a fraction; `note` names an oddity of it, "" if none."""

    name: str
    accuracy: str
    auc: str
    f1: str
    note: str = ""


class ActiveLearning(NamedTuple):
    """Statements of §2.2 on a figure: rounds until convergence, and points of accuracy above random there."""

    figure: str
    rounds: int
    points: str


# Table 1: patients, and slices with a lesion; the paper's text counts other patients.
PATIENTS = {"encephalitis": 118, "glioma": 57}
PATIENTS_OF_TEXT = (108, 56)
SLICES = {
    "flair": {"encephalitis": 636, "glioma": 408},
    "ce_t1wi": {"encephalitis": 798, "glioma": 763},
    "t2wi": {"encephalitis": 745, "glioma": 402},
}
COHORT_NOTE = "The paper's Table 1 counts 175 patients, its text 164 (108 encephalitis, 56 glioma)."

# Table 2: parameters in millions, and the backbones of our registry that have as many.
PARAMETERS = {"AlexNet": "62.378", "ResNet-50": "25.583", "Inception-V3": "24.734"}
SAME_PARAMETERS = {"alexnet": "AlexNet", "resnet50_v1": "ResNet-50"}
PARAMETERS_NOTE = (
    "The paper's AlexNet is the single tower, its ResNet-50 the one of Keras, both to the digit. No definition of "
    "Inception-V3 was found that has 24.734 M parameters: not reproduced."
)

# Tables 3, 4 and 5, ResNet-50 on FLAIR as printed.
TABLE_NUMBER = {"flair": 3, "ce_t1wi": 4, "t2wi": 5}
_RESNET_NOTE = "as printed; the mean of 90.09 in the paper's Table 6 needs 86.40 here"
TRANSFER = {
    "flair": (
        Row("AlexNet", "78.53", ".86", "78.43"),
        Row("ResNet-50", "82.3", ".94", "86.22", _RESNET_NOTE),
        Row("Inception-V3", "84.64", ".91", "84.81"),
    ),
    "ce_t1wi": (
        Row("AlexNet", "92.82", ".95", "92.83"),
        Row("ResNet-50", "94.12", ".97", "94.23"),
        Row("Inception-V3", "95.08", ".98", "95.08"),
    ),
    "t2wi": (
        Row("AlexNet", "81.22", ".89", "81.23"),
        Row("ResNet-50", "89.75", ".95", "89.82"),
        Row("Inception-V3", "89.67", ".95", "89.80"),
    ),
}
TRANSFER_NOTE = (
    "The paper prints no intervals and does not say whether a score is a slice's or a patient's, nor whether "
    "patients were kept together in the folds; its F1 follows its accuracy, so it is read as the weighted one. On 175 "
    "patients an accuracy of 95.08 % has a 95 % interval of about 90.8 to 97.4 %."
)

# Table 6: means over the three sequences, and two readers.
MEANS = (
    Row("AlexNet", "84.19", ".90", "84.13"),
    Row("ResNet-50", "90.09", ".95", "90.06"),
    Row("Inception-V3", "89.80", ".95", "89.86"),
    Row("Radiologist 1", "81.82", ".89", "73.22", "read patients, not slices; F1 of one class"),
    Row("Radiologist 2", "73.33", ".77", "60.72", "read patients, not slices; F1 of one class"),
)

# Yagis et al. 2021, Scientific Reports 11:22544, on four cohorts of brain MRI.
LEAKAGE_NOTE = (
    "On four other cohorts of brain MRI folds by slice flattered accuracy by 29 to 55 points, and random labels were "
    "told apart with about 96 % accuracy (Yagis et al. 2021, Scientific Reports 11:22544)."
)

# Table 7, on CE-T1WI.
BASELINES = (
    Row("CNN of [9]", "84.79", ".90", "84.33"),
    Row("CNN of [10]", "82.39", ".88", "81.86"),
    Row("CapsNet [11]", "85.56", ".91", "85.5"),
    Row("CNN-F [12]", "83.41", ".89", "82.63"),
    Row("Inception-V3", "95.08", ".98", "95.05"),
)

ACTIVE_LEARNING = {
    "flair": ActiveLearning("Fig. 9", 6, "7.76"),
    "ce_t1wi": ActiveLearning("Fig. 10", 8, "6.94"),
    "t2wi": ActiveLearning("Fig. 11", 9, "10.53"),
}


def sequence_title(sequence: str) -> str:
    """Returns a sequence's name as the paper writes it; an unknown name is returned unchanged."""
    return TITLES.get(sequence, sequence)


def readers_implied() -> list[dict[str, Any]]:
    """Returns the paper's scores of its readers, and the sensitivity and specificity that they imply.

    The paper prints accuracy, AUC and F1; the points of its Figs 6 to 8 have no numbers. If that F1 is of glioma (a
    guess: the printed AUCs are higher than one such point can have), accuracy a and F1 f at a given prevalence
    determine both: with e = 1 − a, the true positives are f e / (2 (1 − f)), as a share of all patients.

    Returns:
        For each reader {"name", "accuracy", "auc", "f1" as printed, "implied": [(sensitivity, specificity) in per
        cent] for the patients of Table 1 (118, 57) and for those of the text (108, 56)}.
    """
    rows = []
    for row in MEANS:
        if not row.name.startswith("Radiologist"):
            continue
        error, f1 = 1 - float(row.accuracy) / 100, float(row.f1) / 100
        hits = f1 * error / (2 * (1 - f1))
        implied = []
        for encephalitis, glioma in (tuple(PATIENTS.values()), PATIENTS_OF_TEXT):
            share = glioma / (glioma + encephalitis)
            missed = share - hits
            implied.append((100 * hits / share, 100 * (1 - (error - missed) / (1 - share))))
        rows.append({"name": row.name, "accuracy": row.accuracy, "auc": row.auc, "f1": row.f1, "implied": implied})
    return rows
