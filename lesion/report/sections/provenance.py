"""Provenance: data, split, weights and versions of the whole run, and every experiment with its command."""

from collections.abc import Iterable, Mapping
from typing import Any

from lesion.report import words
from lesion.report.records import KINDS, Experiment, Folder

ONE_SPLIT = ("transfer", "baselines", "active", "doctor")  # leakage differs on purpose


def commands(runs: Iterable[Experiment]) -> list[tuple[str, str]]:
    """Returns (names, command) for each distinct command, with the names of the experiments that it repeats."""
    by_command: dict[str, list[str]] = {}
    for run in runs:
        command = run.config.get("command")
        if command:
            by_command.setdefault(str(command), []).append(run.name or run.sequence)
    return [(", ".join(dict.fromkeys(names)), command) for command, names in by_command.items()]


def weights_records(configs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the distinct records of weights in config.json files."""
    known: dict[Any, Mapping[str, Any]] = {}
    for config in configs:
        record = config.get("weights", {})
        for weights in record.get("sequences", {}).values() or [record]:  # a fusion may use one network per sequence
            if weights:
                known.setdefault((weights.get("model"), weights.get("sha256")), weights)
    return list(known.values())


def _weights_facts(records: list[Mapping[str, Any]]) -> dict[str, str]:
    """Returns {name: value} of every field of a single record; of several records a line for each."""
    if len(records) == 1:
        return {f"Weights, {name.replace('_', ' ')}": value for name, value in words.flatten(dict(records[0]))}
    lines = {}
    for record in records:
        sha256 = f"sha256 {record['sha256']}" if "sha256" in record else ""
        parts = [record.get("source"), record.get("file"), record.get("licence"), sha256]
        known = ", ".join(str(part) for part in parts if part)
        random = f"random, seed {record.get('seed', words.MISSING)}"
        lines[f"Weights, {str(record.get('model', '')).replace('_', ' ')}"] = (
            known if record.get("pretrained") else random
        )
    return lines


def _experiment_name(kind: str, run: Experiment) -> str:
    """Returns the name of an experiment, e.g. `Ablation ResNet-50 CE-T1WI, head, widths=64`."""
    model = run.model if kind == "leakage" else run.title
    name = " ".join(part for part in (KINDS[kind], model.replace("_", " "), run.sequence_title) if part)
    return ", ".join([name, run.levels[1], run.levels[2].replace(",", ", ")]) if kind == "ablations" else name


def section(folder: Folder) -> dict[str, Any]:
    """Returns the values that provenance.html.j2 prints."""
    experiments = list(folder.experiments())
    config = folder.config or next((run.config for _, run in experiments), {})
    whole = dict(words.flatten(config.get("config", {})))
    rows = []
    for kind, run in experiments:
        # Fields that equal the whole run's configuration are not repeated.
        fields = [(k, v) for k, v in words.flatten(run.fields) if not folder.config or whole.get(k) != v]
        rows.append((_experiment_name(kind, run), run, fields))
    own_first = [folder.config, *(run.config for run in (*folder.transfer, *folder.active, *folder.doctor))]
    facts = {
        "Command": config.get("command"),
        "Started": words.timestamp(config.get("started")),
        "Finished": words.timestamp(config.get("finished")),
        "Data, fingerprint": config.get("data", {}).get("fingerprint") or folder.cohort.get("fingerprint"),
        "Split, hash": config.get("split_hash"),
        "Device": config.get("device"),
    } | _weights_facts(weights_records([*own_first, *(run.config for _, run in experiments)]))
    splits = {run.config.get("split_hash") for kind, run in experiments if kind in ONE_SPLIT}
    return {
        "facts": [(name, value) for name, value in facts.items() if value],
        "rows": rows,
        "versions": words.flatten(config.get("versions", {})),
        "fields": list(whole.items()),
        "one_split": len((splits | {config.get("split_hash")}) - {None}) <= 1,
    }
