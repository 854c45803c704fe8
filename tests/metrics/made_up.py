"""Cohorts and models drawn by seed."""

import numpy as np


def cohort(seed, num_patients=30, max_slices=8, signal=1.0, decimals=3):
    """Label, probability and patient of [N] slices; both classes are present."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(num_patients) % 2)
    count = rng.integers(1, max_slices + 1, num_patients)
    patient = np.repeat([f"p{i:03d}" for i in range(num_patients)], count)
    label = np.repeat(label, count)
    logit = signal * (2 * label - 1) + rng.normal(size=label.size) + np.repeat(rng.normal(size=num_patients), count)
    return label, np.round(1 / (1 + np.exp(-logit)), decimals), patient


def second_model(columns, seed, mix=0.5, decimals=3):
    """Another model's columns of the same slices, like the first one but for `mix` of noise."""
    label, probability, patient = columns
    noise = np.random.default_rng([seed, 7]).random(label.size)
    return label, np.round((1 - mix) * probability + mix * noise, decimals), patient


def shuffled(columns, seed):
    order = np.random.default_rng(seed).permutation(columns[0].size)
    return tuple(column[order] for column in columns)
