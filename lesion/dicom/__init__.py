"""A folder of DICOM: which files are MR images, which sequence each is, and the user's tables beside them."""

# Titles, in the order in which sequences are shown.
SEQUENCES = {
    "flair": "FLAIR",
    "ce_t1wi": "CE-T1WI",
    "t2wi": "T2WI",
}
UNLABELED = -1  # the label of a patient whose class is not known
