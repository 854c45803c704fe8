"""The shell of Grad-CAM: explains slices by the network that did not see their patient, and writes the sheet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.special import expit

from lesion import files, models
from lesion.dataset import LABELS, SEQUENCES, Slices, store
from lesion.errors import UserError
from lesion.inference import choose, gradcam, sheet, trained_run
from lesion.inference.choose import Chosen
from lesion.inference.trained_run import Trained
from lesion.progress import track
from lesion.runs import rundir

VERSION = 1  # raised whenever the same run would give another sheet
BATCH_SIZE = 8
RANDOM_HEADS = 5
TOLERANCE = 0.05  # of a probability: for bfloat16 and other kinds of machine
GRADCAM = (
    *("slice", "patient", "fold", "label", "probability", "why", "evidence_for"),
    *("peak_row", "peak_column", "random_head_correlation"),
)
NAMES = {number: name for name, number in LABELS.items()}


class Look(NamedTuple):
    """What a network says of one slice.

    Attributes:
        probability: of glioma.
        heat: float32 [h, w], the evidence for the class that it calls the slice.
        correlation: of `heat` with the maps of random heads, the mean of Spearman's; NaN where none is defined.
    """

    probability: float
    heat: np.ndarray
    correlation: float

    @property
    def called(self) -> str:
        """The class's name."""
        return NAMES[int(self.probability > 0.5)]


Network = tuple[dict, dict]  # variables of the backbone, parameters of the head


def build(run: Trained, stage: str = "") -> Callable[..., list[Look]]:
    """Builds `explain(network, image uint8 [N, S, S], sign=None) -> looks [N]`, compiled once for all folds.

    `sign` float32 [N] asks for the evidence of a class, see `gradcam.grad_cam`; None for that which the network calls.

    Args:
        run: of launch.train.
        stage: whose map is looked at; empty: the last.

    Raises:
        UserError: if there is no such stage, or it gives no map.
    """
    spec, config, head = models.get_spec(run.config.backbone), run.config, run.head
    stage = stage_of(config.backbone, stage)
    how = gradcam.explainer(run.model, head, stage=stage, last_map=spec.last_map, pooling=run.pooling)

    @jax.jit
    def look(variables: Any, head_params: Any, image: jax.Array, sign: jax.Array | None):
        activation = how.activate(variables, models.preprocess(config.backbone, image).astype(config.dtype))
        heat, logit = how.explain(variables, head_params, activation, sign)
        same = gradcam.called(logit) if sign is None else sign

        def at_random(key: jax.Array) -> jax.Array:
            params = head.init(key, jnp.zeros((1, _width(head_params, head))))["params"]
            return how.explain(variables, params, activation, same)[0]

        return heat, logit, jax.lax.map(at_random, jax.random.split(jax.random.key(config.seed), RANDOM_HEADS))

    def explain(network: Network, image: np.ndarray, sign: np.ndarray | None = None) -> list[Look]:
        network, looks = jax.device_put(network), []
        for start in range(0, len(image), BATCH_SIZE):
            at = np.minimum(np.arange(start, start + BATCH_SIZE), len(image) - 1)  # one shape: one compilation
            heat, logit, random = jax.device_get(look(*network, image[at], None if sign is None else sign[at]))
            for i in range(min(BATCH_SIZE, len(image) - start)):
                looks.append(Look(float(expit(logit[i])), heat[i], _correlation(heat[i], random[:, i])))
        return looks

    return explain


def stage_of(backbone: str, stage: str) -> str:
    """The stage that is looked at: the one named, or the backbone's last map; a `UserError` if it gives no map."""
    if not stage:
        return models.get_spec(backbone).last_map
    models.stage_before(backbone, stage)  # raises for an unknown one
    maps = models.map_stages(backbone)
    if not any(name == stage or name.startswith(f"{stage}_") for name in maps):
        raise UserError(f"stage {stage!r} of {backbone} gives no map: choose one up to {maps[-1]}")
    return stage


def _width(head_params: Any, head: Any) -> int:
    """D of the features that a head is made for."""
    return head_params["fc0" if head.widths else "logit"]["kernel"].shape[0]


def _correlation(heat: np.ndarray, random: np.ndarray) -> float:
    """Mean of Spearman's correlation of [h, w] with each of [R, h, w]; constant maps have none."""
    some = [other for other in random if np.ptp(other) > 0]
    if not some or not np.ptp(heat) > 0:
        return float("nan")
    return float(np.mean([stats.spearmanr(heat.ravel(), other.ravel()).statistic for other in some]))


def explain_run(
    workdir: Path, data_dir: Path, out: Path, *, weights: str = "", stage: str = "", each: int = choose.EACH
) -> dict[str, Any] | None:
    """Writes the Grad-CAM sheet of a finished transfer run.

    Beside the maps it makes the check of Adebayo et al., Sanity Checks for Saliency Maps (NeurIPS 2018): those of heads
    with random weights. Where they are the same, a map tells of the backbone and not of what was learnt.

    Args:
        workdir: of launch.train.
        data_dir: the dataset that it was trained on.
        out: gets config.json, gradcam.csv, gradcam.png and, last, metrics.json.
        weights: where the backbone's converted weights lie now, if they were moved.
        stage: whose map is looked at; empty: the last.
        each: at most so many slices of a class and reason.

    Returns:
        The metrics, or None if this was done before.

    Raises:
        UserError: if the run is not finished, or dataset or weights are not those it was trained on.
    """
    run = trained_run.open_run(workdir, weights)
    chosen = choose.choose(trained_run.read_predictions(run), each)
    info, slices = store.load_info(data_dir), store.load_slices(data_dir, run.config.sequence)
    if info["fingerprint"] != run.record["data"]["fingerprint"]:
        raise UserError(f"{workdir} was trained on another dataset than {data_dir}: name that one with --data")
    explain, stage = build(run, stage), stage_of(run.config.backbone, stage)
    of_what = {"predictions": files.sha256(workdir / "predictions.csv"), "version": VERSION}
    parts = ("config", "data", "phantom", "split_hash", "weights", "device")
    settings = {"explain": of_what | {"stage": stage, "each": each}}
    if rundir.open_run(out, {name: run.record[name] for name in parts} | settings):
        return None
    looks = _look_at_all(run, explain, slices, chosen)
    _write_table(out / "gradcam.csv", slices, chosen, looks)
    _draw(out / "gradcam.png", run, slices, chosen, looks, stage)
    found = np.array([look.correlation for look in looks])
    result = {
        "slices": {why: sum(one.why == why for one in chosen) for why in (choose.RIGHT, choose.WRONG, choose.UNSURE)},
        "without_evidence": sum(not look.heat.max() > 0 for look in looks),
        "random_head_correlation": _median(found),
        "random_heads": RANDOM_HEADS,
    }
    rundir.finish(out, result)
    return result


def _look_at_all(run: Trained, explain: Callable, slices: Slices, chosen: list[Chosen]) -> list[Look]:
    """Each slice by the network of the fold in which its patient was tested."""
    place = {slice_id: i for i, slice_id in enumerate(slices.slice_id)}
    looks: dict[str, Look] = {}
    folds = sorted({one.prediction.fold for one in chosen})
    for fold in track(f"grad-cam {run.config.sequence}", folds, len(folds)):
        some = [one.prediction for one in chosen if one.prediction.fold == fold]
        at = np.array([place[row.slice] for row in some])
        for row, look in zip(some, explain(trained_run.load_fold(run, fold), slices.image[at]), strict=True):
            if abs(look.probability - row.probability) > TOLERANCE:
                raise UserError(
                    f"the network of fold {fold} in {run.folder} gives slice {row.slice} {look.probability:.3f}, "
                    f"predictions.csv {row.probability:.3f}: they do not belong together, run launch.train anew"
                )
            looks[row.slice] = look
    return [looks[one.prediction.slice] for one in chosen]


def _write_table(path: Path, slices: Slices, chosen: list[Chosen], looks: list[Look]) -> None:
    side = slices.image.shape[1]
    rows = []
    for (why, row), look in zip(chosen, looks, strict=True):
        at = sheet.peak(look.heat, side) or ("", "")
        told = "" if np.isnan(look.correlation) else look.correlation
        rows.append(
            (row.slice, row.patient, row.fold, row.label, row.probability, why, look.called, *at, told),
        )
    files.write_csv(path, GRADCAM, rows)


def _draw(path: Path, run: Trained, slices: Slices, chosen: list[Chosen], looks: list[Look], stage: str) -> None:
    place = {slice_id: i for i, slice_id in enumerate(slices.slice_id)}
    rows = []
    for label, name in NAMES.items():
        for why in (choose.RIGHT, choose.WRONG, choose.UNSURE):
            panels = [
                sheet.Panel(slices.image[place[row.slice]], look.heat, _words(row, look))
                for (reason, row), look in zip(chosen, looks, strict=True)
                if (reason, row.label) == (why, label)
            ]
            rows.append(sheet.Row(f"{name}\n{why}", panels, f"no slice of {name} is {why}"))
    title = f"{models.get_spec(run.config.backbone).title} on {SEQUENCES[run.config.sequence]}: where the network looks"
    correlation = _median(np.array([look.correlation for look in looks]))
    check = "none is defined" if correlation is None else f"median {correlation:.2f}"
    cells = "×".join(map(str, looks[0].heat.shape))
    notes = [
        f"Map of stage {stage} ({cells} cells), of what speaks for the class called. By rule: the most confident "
        "right and wrong slices and the least sure, one a patient, each by the network not trained on that patient.",
        f"Rank correlation with the maps of {RANDOM_HEADS} heads of random weights: {check}; near 1 a map would show "
        "the backbone, not what was learnt.",
    ]
    sheet.draw(path, rows, title, notes, run.record["phantom"])


def _words(row: choose.Prediction, look: Look) -> str:
    sure = row.probability if look.called == NAMES[1] else 1 - row.probability
    percent = f"{100 * sure:.0f} %" if sure < 0.995 else "over 99 %"
    who = f"patient {row.patient[:9]}, slice {row.slice[:9]}, fold {row.fold}"
    return f"called {look.called}, {percent} · is {NAMES[row.label]}\n{who}"


def _median(values: np.ndarray) -> float | None:
    """Of those that are defined; None if none is."""
    return float(np.nanmedian(values)) if np.isfinite(values).any() else None
