"""The simulated cohort: anatomy, lesions, a scanner, DICOM files. Nothing imports it but its own program."""
