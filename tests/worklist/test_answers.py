"""What answers come to: the last one of a slice, and one class of a patient."""

import pytest

from lesion.worklist import CANNOT_TELL, CONTRADICTION, NOT_USABLE, answers
from lesion.worklist.answers import Answer

PATIENT_OF = {"a1": "a", "a2": "a", "a3": "a", "b1": "b"}
E, G = "encephalitis", "glioma"
CASES = {
    "nothing": ([], {}, {}, {}),
    "no contradiction": (
        [("a1", G), ("a2", NOT_USABLE), ("b1", E)],
        {"a1": G, "a2": NOT_USABLE, "b1": E},
        {"a1": G, "a2": NOT_USABLE, "b1": E},
        {},
    ),
    "one against two, said last": (
        [("a1", G), ("a2", G), ("a3", E), ("b1", E)],
        {"a1": E, "a2": E, "a3": E, "b1": E},
        {"a1": G, "a2": G, "a3": G, "b1": E},
        {"a": ["a1", "a2", "a3"]},
    ),
    "as many": ([("a1", G), ("a2", E)], {"a1": E, "a2": E}, {"a1": E, "a2": E}, {"a": ["a1", "a2"]}),
    "said anew, and so said last": (
        [("a1", G), ("a2", E), ("a1", G)],
        {"a1": G, "a2": G},
        {"a1": G, "a2": G},
        {"a": ["a2", "a1"]},
    ),
    "what has no class contradicts nothing": (
        [("a1", G), ("a2", CANNOT_TELL), ("a3", NOT_USABLE)],
        {"a1": G, "a2": CANNOT_TELL, "a3": NOT_USABLE},
        {"a1": G, "a2": CANNOT_TELL, "a3": NOT_USABLE},
        {},
    ),
    "asked again, it counts for the patient": (
        [("a1", G), ("a2", E), ("a3", NOT_USABLE), ("b1", E), ("a2", G, CONTRADICTION)],
        {"a1": G, "a2": G, "a3": NOT_USABLE, "b1": E},
        {"a1": G, "a2": G, "a3": NOT_USABLE, "b1": E},
        {},
    ),
    "asked again, it cannot be told: nothing of the patient is trained on": (
        [("a1", G), ("a2", E), ("a2", CANNOT_TELL, CONTRADICTION)],
        {"a1": CANNOT_TELL, "a2": CANNOT_TELL},
        {"a1": CANNOT_TELL, "a2": CANNOT_TELL},
        {},
    ),
    "asked again, only that slice is bad": (
        [("a1", G), ("a2", E), ("a3", E), ("a3", NOT_USABLE, CONTRADICTION)],
        {"a1": E, "a2": E, "a3": NOT_USABLE},
        {"a1": E, "a2": E, "a3": NOT_USABLE},
        {"a": ["a1", "a2"]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_patient_has_one_class_and_a_slice_its_last_answer(case):
    given, last, majority, contradictions = CASES[case]
    said = answers.current([Answer(*answer) for answer in given], PATIENT_OF)
    assert answers.contradictions(said, PATIENT_OF) == contradictions
    for by, wanted in {"last": last, "ask": last, "majority": majority}.items():
        settled = answers.settle(said, PATIENT_OF, by)
        assert settled == wanted and not answers.contradictions(settled, PATIENT_OF)
    with pytest.raises(AssertionError):
        answers.settle(said, PATIENT_OF, "first")
