"""The queries to a doctor and the answers: the queried round, the journal of answers, worklist.csv.

Everything is in RUN_DIR/annotate: neither dataset nor model is needed to answer.

    RUN_DIR/annotate/round_000/round.json     the queried slices, and what to show beside them
                               worklist.csv   the same as a table to fill in elsewhere
                               closed.json    the answers, once they are trained on
                     pictures/               of all queried patients
                     journal.jsonl           every answer, one per line, never changed
                     address.json            address of the page, with its token
"""

FOLDER = "annotate"
SKIP = "skip"  # the doctor cannot tell: the slice is neither queried again nor trained on
