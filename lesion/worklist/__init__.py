"""What a doctor is asked and answers: the queried round, the journal of answers, worklist.csv.

Everything lies in RUN_DIR/annotate and is read from there: neither dataset nor model is needed to answer.

    RUN_DIR/annotate/round_000/round.json     the queried slices, and what to show beside them
                               worklist.csv   the same as a table to fill in elsewhere
                               closed.json    the answers, once they are trained on
                     pictures/               of all queried patients
                     journal.jsonl           every answer, a line each, never changed
                     address.json            where the page is served, with its token
"""

FOLDER = "annotate"
SKIP = "skip"  # the doctor cannot tell: the slice is neither queried again nor trained on
