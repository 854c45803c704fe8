"""Shows what became of each series: series_found.csv, a page of thumbnails beside it, a table on the terminal.

File and page hold identifiers and pixels as they were scanned: they lie in the private folder. A radiologist looks at
the page, corrects a sequence, and saves series.csv, which the next run of `launch.prepare` heeds.
"""

import base64
import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from lesion import workers
from lesion.dataset import pseudonyms
from lesion.dicom import SEQUENCES, read, tables
from lesion.dicom.pixels import read_pixels
from lesion.dicom.series import Series

CSV_FILE, PAGE_FILE = "series_found.csv", "series_found.html"
COLUMNS = (
    "series_instance_uid,study_instance_uid,patient_id,study_date,files,frames,plane,body_part,description,protocol,"
    "echo_time_ms,repetition_time_ms,inversion_time_ms,agent,sequence,used,reason"
).split(",")
THUMBNAIL = 128  # pixels
MAX_ROWS = 40  # of the terminal's table


def write(private: Path, judged: Sequence[Series], thumbnails: Sequence[str]) -> None:
    """Writes series_found.csv and series_found.html to the private folder.

    Args:
        private: the folder.
        judged: all series.
        thumbnails: a data URL for each, see `draw_thumbnails`.
    """
    rows = [_row(series) for series in judged]
    with pseudonyms.private_file(private / CSV_FILE) as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    patients: dict[str, list[dict[str, object]]] = {}
    for series, row, thumbnail in zip(judged, rows, thumbnails, strict=True):
        listed = series.reason.startswith(tables.SERIES)  # corrected before: the page keeps the correction
        choice = (series.sequence or tables.SKIP) if listed else ""
        card: dict[str, object] = {"thumbnail": thumbnail, "uids": series.uids, "choice": choice}
        card.update(zip(COLUMNS, row, strict=True))
        patients.setdefault(series.patient_id, []).append(card)
    environment = jinja2.Environment(loader=jinja2.PackageLoader("lesion.dataset", "."), autoescape=True)
    environment.filters["day"] = lambda date: re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", date)
    page = environment.get_template(f"{PAGE_FILE}.j2").render(
        patients=patients, sequences=SEQUENCES, skip=tables.SKIP, series_file=tables.SERIES
    )
    with pseudonyms.private_file(private / PAGE_FILE) as stream:
        stream.write(page)


def _row(series: Series) -> list[str]:
    attributes = series.attributes
    times = attributes.echo_time_ms, attributes.repetition_time_ms, attributes.inversion_time_ms
    return [
        " ".join(series.uids),
        series.study_uid,
        series.patient_id,
        series.study_date,
        str(len(series.members)),
        str(series.num_frames()),
        read.plane_name(series.plane),
        attributes.body_part,
        attributes.description,
        attributes.protocol,
        *("" if time is None else f"{time:g}" for time in times),
        attributes.agent,
        series.sequence,
        "yes" if series.used else "no",
        "; ".join([series.reason, *series.notes]),
    ]


def draw_thumbnails(judged: Sequence[Series]) -> list[str]:
    """Returns a picture of each series' middle slice, a data URL; empty where it cannot be decoded."""
    tasks = [_middle(series) for series in judged]
    # As in `render.render_all`: a codec may die, in a process of its own without harm to this one.
    serial = 0 if any(instance.compressed for _, instance, _ in tasks) else 64
    return list(
        workers.parallel_map(_draw, tasks, "looking at each series", lambda task: "", chunk_size=8, max_serial=serial)
    )


def _middle(series: Series) -> tuple[str, read.Instance, int]:
    slices = [(member.instance, number) for member in series.members for number in member.frames]
    slices.sort(key=lambda slice_: slice_[0].frames[slice_[1] - 1].position_mm)
    instance, number = slices[len(slices) // 2]
    return series.folder, instance, number


def _draw(task: tuple[str, read.Instance, int]) -> str:
    folder, instance, number = task
    try:
        plane = read_pixels(folder, instance)[number - 1]
        low, high = np.percentile(plane, (1, 99.5))
    except Exception:  # as in `lesion.dicom.read`: pydicom raises nearly anything on broken pixels
        return ""
    spacing = instance.frames[number - 1].spacing or (1.0, 1.0)
    shown = np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 255
    picture = Image.fromarray(shown.astype(np.uint8))
    rows, columns = (length * mm for length, mm in zip(plane.shape, spacing, strict=True))
    scale = THUMBNAIL / max(rows, columns)
    picture = picture.resize((max(1, round(columns * scale)), max(1, round(rows * scale))))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def overview(judged: Sequence[Series], patients: Mapping[str, str]) -> str:
    """Returns a table of patients and sequences for the terminal: slices of each, patients by pseudonym.

    Of many patients those are listed that miss a sequence.
    """
    counts = {pseudonym: dict.fromkeys(SEQUENCES, 0) for pseudonym in sorted(patients.values())}
    for series in judged:
        if series.used:
            counts[patients[series.patient_id]][series.sequence] += sum(len(m.chosen) for m in series.members)
    incomplete = {patient: row for patient, row in counts.items() if not all(row.values())}
    listed = counts if len(counts) <= MAX_ROWS else dict(list(incomplete.items())[:MAX_ROWS])
    lines = [f"{'patient':<18}" + "".join(f"{title:>10}" for title in SEQUENCES.values())]
    for patient, row in listed.items():
        lines.append(f"{patient:<18}" + "".join(f"{row[name] or '-':>10}" for name in SEQUENCES))
    have = {name: sum(row[name] > 0 for row in counts.values()) for name in SEQUENCES}
    lines.append(f"{f'{len(counts)} patients have':<18}" + "".join(f"{have[name]:>10}" for name in SEQUENCES))
    if len(incomplete) > len(listed):
        lines.append(f"{len(incomplete)} patients miss a sequence, {len(listed)} of them are listed")
    return "\n".join(lines)
