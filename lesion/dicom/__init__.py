"""A folder of DICOM: which files are MR images, which sequence each is, and the user's tables beside them."""

SEQUENCES = {"flair": "FLAIR", "ce_t1wi": "CE-T1WI", "t2wi": "T2WI"}  # as shown, in the order shown
LABELS = {"encephalitis": 0, "glioma": 1}
UNLABELED = -1
