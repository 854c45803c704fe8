"""Grad-CAM sheet of a finished run: each slice is explained by the network that was not trained on its patient."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.special import expit

from lesion import files, models
from lesion.classes import Classes
from lesion.dataset import SEQUENCES, Slices, store
from lesion.errors import UserError
from lesion.inference import choose, gradcam, sheet, trained_run
from lesion.inference.choose import Chosen
from lesion.inference.trained_run import FoldVariables, TrainedRun
from lesion.progress import track
from lesion.runs import rundir
from lesion.train.forward import over_rows

VERSION = 1  # raised whenever the same run would give another sheet
BATCH_SIZE = 8
RANDOM_HEADS = 5
TOLERANCE = 0.05  # of a probability, between kinds of machine and for bfloat16
GRADCAM = (
    *("slice", "patient", "fold", "label", "probability", "why", "evidence_for"),
    *("peak_row", "peak_column", "random_head_correlation"),
)


class Explanation(NamedTuple):
    """A network's prediction for one slice, and its Grad-CAM map.

    Attributes:
        probability: probability of glioma.
        heat: float32 [h, w], the evidence for the predicted class, or for the one that was asked for.
        correlation: mean of Spearman's correlations of `heat` with the maps of random heads; NaN where undefined.
    """

    probability: float
    heat: np.ndarray
    correlation: float

    @property
    def called(self) -> int:
        """The predicted class."""
        return int(self.probability > 0.5)


Explain = Callable[..., list[Explanation]]  # see `make_explain`


def make_explain(run: TrainedRun, stage: str = "") -> Explain:
    """Builds `explain(fold variables, image uint8 [N, S, S], sign=None) -> N explanations`; one program for all folds.

    `sign` float32 [N] names the class whose evidence is shown, see `gradcam.grad_cam`; None: the predicted class.

    Args:
        run: run of launch.train.
        stage: stage whose map is explained; empty: the last one with a map.

    Raises:
        UserError: if the run is of a support vector machine, there is no such stage, or its output is no map.
    """
    config, network = run.config, run.network
    model, head = network.backbone, network.head
    assert model is not None
    if head is None:
        raise UserError(f"{run.folder} is of a support vector machine, which has no Grad-CAM: name a run of a network")
    stage = map_stage(config.backbone, stage)
    above = dataclasses.replace(network, start=stage)

    @jax.jit
    def explain_batch(params: Any, batch_stats: Any, image: jax.Array, sign: jax.Array | None):
        x = models.preprocess(config.backbone, image).astype(config.dtype)
        variables = {"params": params["backbone"], "batch_stats": batch_stats}
        activation = jnp.asarray(model.apply(variables, x, stop=stage))
        heat, logit = gradcam.explain(network, params, batch_stats, activation, stage, sign)
        sign = gradcam.called_sign(logit) if sign is None else sign

        def with_random_head(key: jax.Array) -> jax.Array:
            random, _ = above.init(key, activation, variables)
            return gradcam.explain(network, random, batch_stats, activation, stage, sign)[0]

        keys = jax.random.split(jax.random.key(config.seed), RANDOM_HEADS)
        return {"heat": heat, "logit": logit, "random": jnp.moveaxis(jax.lax.map(with_random_head, keys), 1, 0)}

    def explain(variables: FoldVariables, image: np.ndarray, sign: np.ndarray | None = None) -> list[Explanation]:
        params, batch_stats = jax.device_put(tuple(variables))

        def explain_rows(rows: np.ndarray) -> Any:
            return explain_batch(params, batch_stats, image[rows], None if sign is None else sign[rows])

        explanations = []
        for _, batch in over_rows(explain_rows, range(len(image)), BATCH_SIZE):
            for heat, logit, random in zip(batch["heat"], batch["logit"], batch["random"], strict=True):
                explanations.append(Explanation(float(expit(logit)), heat, _correlation(heat, random)))
        return explanations

    return explain


def map_stage(backbone: str, stage: str) -> str:
    """Returns `stage`, or the last one with a map if it is empty; raises a `UserError` if its output is no map."""
    if not stage:
        return models.get_spec(backbone).last_map
    models.stage_before(backbone, stage)  # raises for an unknown one
    maps = models.map_stages(backbone)
    if not any(name == stage or name.startswith(f"{stage}_") for name in maps):
        raise UserError(f"stage {stage!r} of {backbone} gives no map: choose one up to {maps[-1]}")
    return stage


def _correlation(heat: np.ndarray, random: np.ndarray) -> float:
    """Averages Spearman's correlation of a map [h, w] with each of [R, h, w]; NaN, as constant maps have none."""
    varied = [other for other in random if np.ptp(other) > 0]
    if not varied or not np.ptp(heat) > 0:
        return float("nan")
    return float(np.mean([stats.spearmanr(heat.ravel(), other.ravel()).statistic for other in varied]))


def explain_run(
    workdir: Path, data_dir: Path, out: Path, *, weights: str = "", stage: str = "", each: int = choose.EACH
) -> dict[str, Any] | None:
    """Writes the Grad-CAM sheet of a finished transfer run.

    Makes the check of Adebayo et al., Sanity Checks for Saliency Maps (NeurIPS 2018), too: it compares the maps with
    those of heads with random weights. Where they agree, a map shows the backbone and not what was learnt.

    Args:
        workdir: folder of a run of launch.train.
        data_dir: dataset that it was trained on.
        out: folder to write; gets config.json, gradcam.csv, gradcam.png and, last, metrics.json.
        weights: current folder of the backbone's converted weights, if they were moved.
        stage: stage whose map is explained; empty: the last one with a map.
        each: most slices of a class and reason.

    Returns:
        The metrics, or None if the sheet was made before.

    Raises:
        UserError: if the run is not finished, or dataset or weights are not those it was trained on.
    """
    run = trained_run.open_run(workdir, weights)
    chosen = choose.choose(trained_run.read_predictions(run), each)
    info, slices = store.load_info(data_dir), store.load_slices(data_dir, run.config.sequence)
    if info["fingerprint"] != run.record["data"]["fingerprint"]:
        raise UserError(f"{workdir} was trained on another dataset than {data_dir}: name that one with --data")
    explain, stage = make_explain(run, stage), map_stage(run.config.backbone, stage)
    source = {"predictions": files.sha256(workdir / "predictions.csv"), "version": VERSION}
    parts = ("config", "data", "phantom", "split_hash", "weights", "device")
    settings = {"explain": source | {"stage": stage, "each": each}}
    if rundir.open_run(out, {name: run.record[name] for name in parts} | settings):
        return None
    explanations = _explain_chosen(run, explain, slices, chosen)
    _write_table(out / "gradcam.csv", run, slices, chosen, explanations)
    _draw(out / "gradcam.png", run, slices, chosen, explanations, stage)
    reasons = (choose.RIGHT, choose.WRONG, choose.UNSURE)
    result = {
        "slices": {reason: sum(choice.why == reason for choice in chosen) for reason in reasons},
        "without_evidence": sum(not explanation.heat.max() > 0 for explanation in explanations),
        "random_head_correlation": _median([explanation.correlation for explanation in explanations]),
        "random_heads": RANDOM_HEADS,
    }
    rundir.finish(out, result)
    return result


def _explain_chosen(run: TrainedRun, explain: Explain, slices: Slices, chosen: list[Chosen]) -> list[Explanation]:
    """Explains each slice by the network of the fold in which its patient was tested."""
    row_of = {slice_id: row for row, slice_id in enumerate(slices.slice_id)}
    explanations: dict[str, Explanation] = {}
    folds = sorted({choice.prediction.fold for choice in chosen})
    for fold in track(f"grad-cam {run.config.sequence}", folds, len(folds)):
        predictions = [choice.prediction for choice in chosen if choice.prediction.fold == fold]
        image = slices.image[[row_of[prediction.slice] for prediction in predictions]]
        explained = explain(trained_run.load_fold(run, fold), image)
        for prediction, explanation in zip(predictions, explained, strict=True):
            if abs(explanation.probability - prediction.probability) > TOLERANCE:
                raise UserError(
                    f"the network of fold {fold} in {run.folder} gives slice {prediction.slice} "
                    f"{explanation.probability:.3f}, predictions.csv {prediction.probability:.3f}: they do not "
                    "belong together, run launch.train again"
                )
            explanations[prediction.slice] = explanation
    return [explanations[choice.prediction.slice] for choice in chosen]


def _write_table(
    path: Path, run: TrainedRun, slices: Slices, chosen: list[Chosen], explanations: list[Explanation]
) -> None:
    side = slices.image.shape[1]
    rows = []
    for (why, prediction), explanation in zip(chosen, explanations, strict=True):
        peak = sheet.peak(explanation.heat, side) or ("", "")
        correlation = "" if np.isnan(explanation.correlation) else explanation.correlation
        ids = prediction.slice, prediction.patient, prediction.fold, prediction.label, prediction.probability
        rows.append((*ids, why, run.classes[explanation.called], *peak, correlation))
    files.write_csv(path, GRADCAM, rows)


def _draw(
    path: Path, run: TrainedRun, slices: Slices, chosen: list[Chosen], explanations: list[Explanation], stage: str
) -> None:
    row_of = {slice_id: row for row, slice_id in enumerate(slices.slice_id)}
    rows = []
    for label, name in enumerate(run.classes):
        for reason in (choose.RIGHT, choose.WRONG, choose.UNSURE):
            panels = [
                sheet.Panel(
                    slices.image[row_of[prediction.slice]],
                    explanation.heat,
                    _caption(run.classes, prediction, explanation),
                )
                for (why, prediction), explanation in zip(chosen, explanations, strict=True)
                if (why, prediction.label) == (reason, label)
            ]
            rows.append(sheet.Row(f"{name}\n{reason}", panels, f"no slice of {name} is {reason}"))
    title = f"{models.get_spec(run.config.backbone).title} on {SEQUENCES[run.config.sequence]}: where the network looks"
    correlation = _median([explanation.correlation for explanation in explanations])
    check = "none is defined" if correlation is None else f"median {correlation:.2f}"
    cells = "×".join(map(str, explanations[0].heat.shape))
    notes = [
        f"Map of stage {stage} ({cells} cells), of what speaks for the class called. By rule: the most confident "
        "right and wrong slices and the least sure, one a patient, each by the network not trained on that patient.",
        f"Rank correlation with the maps of {RANDOM_HEADS} heads of random weights: {check}; near 1 a map would show "
        "the backbone, not what was learnt.",
    ]
    sheet.draw(path, rows, title, notes, run.record["phantom"])


def _caption(classes: Classes, prediction: choose.Prediction, explanation: Explanation) -> str:
    sure = prediction.probability if explanation.called else 1 - prediction.probability
    percent = f"{100 * sure:.0f} %" if sure < 0.995 else "over 99 %"
    ids = f"patient {prediction.patient[:9]}, slice {prediction.slice[:9]}, fold {prediction.fold}"
    return f"called {classes[explanation.called]}, {percent} · is {classes[prediction.label]}\n{ids}"


def _median(values: list[float]) -> float | None:
    """Returns the median of the values that are not NaN; None if all are."""
    return float(np.nanmedian(values)) if np.isfinite(values).any() else None
