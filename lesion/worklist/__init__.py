"""The queries to a doctor and the answers: the queried rounds, the journal of answers, tables in and out.

Everything is in RUN_DIR/annotate: neither dataset nor model is needed to answer.

    RUN_DIR/annotate/round_000/round.json     the queried slices, and what to show beside them
                               worklist.csv   the same as a table to fill in elsewhere
                               closed.json    the answers, once they are trained on
                     given.csv                labels from elsewhere that the run began with, in the form of labels.csv
                     pictures/               of all queried patients
                     journal.jsonl           every answer, one per line, never changed
                     address.json            address of the page, with its token
    RUN_DIR/labels.csv                       what doctors said, to take elsewhere
"""

FOLDER = "annotate"
CANNOT_TELL = "cannot_tell"  # an answer: the slice leaves the pool, and is asked again at the end
NOT_USABLE = "not_usable"  # an answer: the slice leaves the pool for good
NO_CLASS = (CANNOT_TELL, NOT_USABLE)
UNDO = "undo"  # in a worklist: takes the answer back
CONTRADICTION = "contradiction"  # why a round asks again: a patient was said to have both classes
