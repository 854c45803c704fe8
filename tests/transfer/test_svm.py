import warnings

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV

from lesion.errors import UserError
from lesion.transfer import svm

RECIPE = svm.SvmRecipe(num_features=6, c=1.0, augmented=True, balanced=False)


@pytest.fixture
def cohort(rng):
    """48 slices of 12 patients with a noisy copy each, 20 features of which 3 tell and 2 are 0."""
    patient = np.repeat([f"p{i:02d}" for i in range(12)], 4)
    label = (np.arange(48) // 4 % 2).astype(np.int32)
    features = rng.normal(size=(48, 1, 20)) + 0.1 * rng.normal(size=(48, 2, 20))
    features[..., :3] += 2 * label[:, None, None]
    features[..., -2:] = 0
    return features.astype(np.float32), label, patient, np.arange(48) < 32


@pytest.mark.parametrize("recipe", [RECIPE, RECIPE._replace(augmented=False, balanced=True)])
def test_the_numbers_kept_predict_what_scikit_learn_does(recipe, cohort):
    features, label, patient, train = cohort
    params, probability = svm.fit(recipe, *cohort)
    copies = 2 if recipe.augmented else 1
    x = features[train][:, :copies].reshape(-1, 20).astype(np.float64)
    y, of_patient = np.repeat(label[train], copies), np.repeat(patient[train], copies)
    folds = svm._folds(y, of_patient)
    assert all(not set(of_patient[a]) & set(of_patient[b]) for a, b in folds)
    whole = CalibratedClassifierCV(svm.pipeline(recipe), method="sigmoid", cv=folds, ensemble=False)
    machine = svm.pipeline(recipe)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant features
        whole.fit(x, y), machine.fit(x, y)
    slices = features[:, 0].astype(np.float64)
    np.testing.assert_allclose(probability, whole.predict_proba(slices)[:, 1], rtol=1e-5)
    np.testing.assert_allclose(svm.decide(params, slices), machine.decision_function(slices), rtol=1e-5, atol=1e-7)
    assert set(params["selected"]) >= {0, 1, 2} and len(params["selected"]) == 6
    assert ((probability > 0.5) == label)[~train].mean() > 0.8


def test_labels_that_are_not_to_be_known_are_not_read(cohort):
    features, label, patient, train = cohort
    _, told = svm.fit(RECIPE, *cohort)
    _, hidden = svm.fit(RECIPE, features, np.where(train, label, -1), patient, train)
    np.testing.assert_array_equal(told, hidden)


def test_too_few_patients_are_one_line(cohort):
    features, label, patient, _ = cohort
    with pytest.raises(UserError, match="fewer than two training patients of a class"):
        svm.fit(RECIPE, features, label, patient, np.arange(48) < 12)
