import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from lesion.dataset import splits, store
from lesion.errors import UserError


@st.composite
def cohorts(draw):
    counts = [draw(st.integers(5, 12)) for _ in range(2)]
    label, patient = [], []
    for value, count in enumerate(counts):
        for i in range(count):
            n = draw(st.integers(1, 6))
            label += [value] * n
            patient += [f"p{value}{i}"] * n
    unlabeled = draw(st.integers(0, 5))
    label, patient = np.array(label + [-1] * unlabeled), np.array(patient + ["u"] * unlabeled)
    order = np.random.default_rng(draw(st.integers(0, 9))).permutation(label.size)
    return label[order].astype(np.int32), patient[order]


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.integers(2, 5), st.integers(0, 3))
def test_every_labelled_slice_is_tested_once_and_no_patient_straddles(cohort, num_folds, seed):
    label, patient = cohort
    split = splits.make(label, patient, num_folds, seed)
    train, test = split.masks(patient, label)
    np.testing.assert_array_equal(test.sum(0), label >= 0)
    np.testing.assert_array_equal(train ^ test, np.broadcast_to(label >= 0, train.shape))
    for a, b in zip(train, test, strict=True):
        assert not set(patient[a]) & set(patient[b])
        assert set(label[b]) == {0, 1}
    order = np.random.default_rng(0).permutation(label.size)
    assert splits.make(label[order], patient[order], num_folds, seed).hash == split.hash


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.floats(0.01, 0.99), st.integers(0, 3))
def test_whole_patients_of_both_classes_are_held_out_and_left(cohort, share, seed):
    label, patient = cohort
    train = (label >= 0) & (patient != "p00")
    held = splits.hold_out(patient, label, train, share, seed)
    assert not (held & ~train).any()
    assert not set(patient[held]) & set(patient[train & ~held])
    assert set(label[held]) == set(label[train & ~held]) == {0, 1}


@pytest.mark.parametrize(("share", "want"), [(0.2, 4), (0.4, 8), (0.05, 2), (0.99, 18)])
def test_the_share_held_out_is_the_one_asked_for(share, want):
    label, patient = np.repeat([0, 1], 10).astype(np.int32), np.array([f"p{i}" for i in range(20)])
    assert splits.hold_out(patient, label, label >= 0, share, 0).sum() == want
    with pytest.raises(UserError, match="1 patients with glioma to train on: early stopping"):
        splits.hold_out(patient, label, np.arange(20) <= 10, share, 0)


def test_a_shared_patient_raises():
    with pytest.raises(ValueError, match="patient b is in training and in test"):
        splits.check_disjoint(np.array(["a", "b", "b"]), np.array([[1, 1, 0]], bool), np.array([[0, 0, 1]], bool))


def test_too_few_patients_is_one_line():
    label, patient = np.array([0, 0, 1, 1, 1]), np.array(list("abcde"))
    with pytest.raises(UserError, match="2 patients with encephalitis for 3 folds"):
        splits.make(label, patient, 3, 0)


def test_saved_split_is_kept_and_another_is_refused(tmp_path):
    label, patient = np.array([0, 0, 1, 1]), np.array(list("abcd"))
    first = splits.load_or_make(tmp_path, label, patient, 2, 0)
    assert splits.load_or_make(tmp_path, label, patient, 2, 0) == first
    splits.load_or_make(tmp_path, label, patient, 2, 1)
    with pytest.raises(UserError, match="another split"):
        splits.load_or_make(tmp_path, label, np.array(list("abce")), 2, 0)
    (tmp_path / splits.FILE).write_text("{broken")
    with pytest.raises(UserError, match="is damaged: remove the file"):
        splits.load_or_make(tmp_path, label, patient, 2, 0)


def names(label, patient):
    return sorted(set(patient[label >= 0].tolist()))


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.data(), st.integers(0, 3))
def test_groups_stay_together_and_each_patient_is_tested_once(cohort, data, seed):
    label, patient = cohort
    # Pairs of one class or of both, some patients alone.
    group_of = {
        name: data.draw(st.sampled_from(["", name[-1], f"pair {name[:-1]} {int(name[-1]) // 2}"]))
        for name in names(label, patient)
    }
    try:
        split = splits.make(label, patient, 2, seed, group_of=group_of)
    except UserError:  # too few groups
        reject()
    assert list(split.test_fold) == names(label, patient)
    for group in set(group_of.values()) - {""}:
        assert len({split.test_fold[name] for name in group_of if group_of[name] == group}) == 1
    alone = {name: f"of {name}" for name in group_of}
    assert splits.make(label, patient, 2, seed, group_of=alone) == splits.make(label, patient, 2, seed)


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.integers(2, 5), st.integers(0, 3))
def test_given_folds_are_the_folds(cohort, num_folds, seed):
    label, patient = cohort
    fold_of = splits.make(label, patient, num_folds, seed + 1).test_fold
    split = splits.make(label, patient, num_folds, seed, fold_of | {"unlabelled": 0}, {"p00": "", "p10": ""})
    assert split.test_fold == fold_of
    _, test = split.masks(patient, label)
    np.testing.assert_array_equal(test.sum(0), label >= 0)


BAD_FOLDS = {  # fault: (folds of the patients a to d, groups, words of the message)
    "three folds": ({"a": 0, "b": 1, "c": 2, "d": 0}, {}, "deals the patients to 3 folds: set --config.num_folds=3"),
    "one fold": ({"a": 0, "b": 0, "c": 0, "d": 0}, {}, "to 1 folds"),
    "a patient left out": ({"a": 0, "b": 1, "c": 0}, {}, "patient d has a label and no fold"),
    "an empty fold": ({"a": 1, "b": 1, "c": 1, "d": 1}, {}, "fold 0 of patients.csv has no labelled patient"),
    "a group in two": ({"a": 0, "b": 1, "c": 0, "d": 1}, {"a": "g", "d": "g"}, "the group of patient d is in two"),
    "a class in one": ({"a": 0, "b": 0, "c": 1, "d": 1}, {}, "fold 1 of 2 has no encephalitis of the cohort to train"),
    "one group": ({}, {"a": "g", "b": "g"}, "2 patients with encephalitis in 1 groups for 2 folds"),
}


@pytest.mark.parametrize("name", BAD_FOLDS)
def test_folds_that_do_not_do_are_one_line(name):
    fold_of, group_of, words = BAD_FOLDS[name]
    with pytest.raises(UserError, match=words) as error:
        splits.make(np.array([0, 0, 1, 1]), np.array(list("abcd")), 2, 0, fold_of, group_of)
    assert "\n" not in str(error.value)


def test_one_class_is_refused():
    with pytest.raises(UserError, match="no patient with glioma has a slice: two classes are needed"):
        splits.make(np.array([0, 0, -1]), np.array(list("abc")), 2, 0)


def test_folds_and_groups_come_from_the_dataset(tmp_path):
    label, patient = np.array([0, 0, 1, 1]), np.array(list("abcd"))
    store.write_patients(tmp_path, {"d": {"fold": "0"}, "b": {"fold": "0"}, "a": {"fold": "1"}, "c": {"fold": "1"}})
    assert splits.load_or_make(tmp_path, label, patient, 2, 5).test_fold == {"a": 1, "b": 0, "c": 1, "d": 0}
    with pytest.raises(UserError, match="num_folds=2"):
        splits.load_or_make(tmp_path, label, patient, 3, 5)
    (tmp_path / splits.FILE).unlink()
    store.write_patients(tmp_path, {"a": {"group": "Li"}, "h": {"group": "Li"}})
    label, patient = np.repeat([0, 1], 4), np.array(list("abcdefgh"))
    dealt = [splits.load_or_make(tmp_path, label, patient, 2, seed).test_fold for seed in range(4)]
    assert all(fold["a"] == fold["h"] for fold in dealt)


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.integers(0, 3))
def test_shuffled_labels_are_dealt_by_patient(cohort, seed):
    label, patient = cohort
    dealt = splits.shuffled(label, patient, seed)

    def of_patient(labels):
        return {p: set(labels[patient == p]) for p in np.unique(patient)}

    assert all(len(values) == 1 for values in of_patient(dealt).values())
    assert sorted(map(tuple, of_patient(dealt).values())) == sorted(map(tuple, of_patient(label).values()))
    assert (dealt[label == -1] == -1).all()
    order = np.random.default_rng(seed).permutation(label.size)
    np.testing.assert_array_equal(splits.shuffled(label[order], patient[order], seed), dealt[order])
