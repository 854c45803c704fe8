"""Which of the three sequences an MR image is, told from what its header says.

Descriptions are free text, typed by whoever set up the protocol; three vendors' habits are covered by word lists (GE
"Ax T2 FLAIR", "+C Ax T1"; Siemens "t2_tirm_tra_dark-fluid", "t1_se_tra_KM"; Philips "T2W_TSE", "sT1W/SE CE"). Where
the text says nothing, the physics does: echo, repetition and inversion time. Where the two contradict each other it is
none; where both mislead, the user's `series.csv` decides (see `intake`).
"""

import re
from typing import NamedTuple

FLAIR, CE_T1WI, T2WI = "flair", "ce_t1wi", "t2wi"

# Words that make an image none of the three, whatever else the text says: scouts, diffusion, susceptibility,
# perfusion, angiography, spectroscopy, derived and composed images.
_OTHER = re.compile(
    r"\b(?:loc|localizers?|scout|survey|pilot|plan|3 ?plane|cal|calib\w*|field ?map\w*|b0|shim|"
    r"e?dwi|dti|diff\w*|adc|e?adc|trace\w*|fa|tensor|ivim|dki|"
    r"swi|swan|venbold|svi|hemo|t2 ?star|t2s|medic|merge|"
    r"perf\w*|pwi|dsc|dce|asl|pcasl|cbf|cbv|mtt|ttp|tmax|bold|fmri|"
    r"mra|mrv|tof|angio\w*|inhance|pc ?3d|mip|minip|mrs|spectro\w*|press|csi|"
    r"sub|subtraction|stir|pdw?|pd ?fs|dual ?echo|mapit|t[12] ?maps?|screen ?save|report|dose)\b"
)
_GRADIENT = re.compile(r"\b(?:gre|ffe|phase)\b")  # susceptibility-weighted, unless the text says T1
_SCOUT = re.compile(r"\b(?:asset|sense|ref)\b")  # a coil's calibration, unless the text names a weighting
_OTHER_TYPES = {
    "LOCALIZER",
    "PROJECTION IMAGE",
    "MIP",
    "MIN_IP",
    "MPR",
    "ADC",
    "FA",
    "TRACEW",
    "PHASE MAP",
    "PERFUSION",
}
_OTHER_CONTRASTS = {"DIFFUSION", "PERFUSION", "T2_STAR", "PROTON_DENSITY", "FLOW_ENCODED"}
_FLAIR = re.compile(r"\b(?:\w*flair\w*|dark ?fluid|darkfl|da fl|tirm|sp(?:ac|c)e? ir)\b|压水")
_T1 = re.compile(r"\b(?:[a-z]?t1\w*|mp ?rage|bravo|f?spgr|vibe|mpr|cube ?t1)\b")
_T2 = re.compile(r"\b(?:[a-z]?t2\w*|frfse)\b")
_BOTH = re.compile(r"\b(?:w|with) ?(?:and|&|\+)? ?(?:w ?o|without)\b(?: contrast)?")  # an examination: tells nothing
_WITH_AGENT = re.compile(
    r"\+ ?(?:c|gd)\b|\bc ?\+|"
    r"\b(?:post|ce\w{0,2}|cet1\w*|t1w?i?(?:ce|c|gd|km)|gad\w*|gd|dtpa|contrast|enh\w*|km|mdc)\b|增强"
)
_WITHOUT_AGENT = re.compile(
    r"\b(?:(?:pre|without|w ?o)(?: ?(?:con\w*|ce|gad\w*|gd))?|non? ?(?:con\w*|ce|gad\w*|gd)|nativ\w*|plain|unenhanced)"
    r"\b|(?:^|\s)- ?c\b|平扫"
)
_NO_AGENT = re.compile(r"(?:no(?:ne|t)?\b.*|n(?: a)?|[0 ]+(?:ml|cc)?|unknown|without\b.*|nil|keine?\b.*|无|没有|\W*)")


class Clues(NamedTuple):
    """What of a header bears on the sequence; times in ms, `None` where the header does not say.

    Attributes:
        text: series description.
        image_type: the values of Image Type (or Frame Type).
        echo_time: ms.
        repetition_time: ms.
        inversion_time: ms.
        agent: the contrast agent as written, empty if none.
        contrast: Acquisition Contrast of an enhanced object, e.g. FLUID_ATTENUATED.
        scanning: Scanning Sequence, e.g. ("SE", "IR").
        b_value: diffusion weighting in s/mm².
        names: protocol and sequence names, joined; often of the whole examination, so that the description goes before.
    """

    text: str = ""
    image_type: tuple[str, ...] = ()
    echo_time: float | None = None
    repetition_time: float | None = None
    inversion_time: float | None = None
    agent: str = ""
    contrast: str = ""
    scanning: tuple[str, ...] = ()
    b_value: float | None = None
    names: str = ""


def tell_sequence(clues: Clues) -> str | None:
    """Returns "flair", "ce_t1wi" or "t2wi", or `None` for any other MR image."""
    types = {value.upper() for value in clues.image_type}
    if types & _OTHER_TYPES or clues.b_value or clues.contrast.upper() in _OTHER_CONTRASTS:
        return None
    text = next((t for t in map(_plain, (clues.text, clues.names)) if _family_by_text(t) or _is_other(t)), "")
    if _is_other(text):
        return None
    told, measured = _family_by_text(text), _family_by_contrast(clues.contrast) or _family_by_physics(clues)
    # "T2 SPACE" with a long inversion time: a FLAIR by its times, whatever it is called.
    family = FLAIR if told == T2WI and measured == FLAIR else told or measured
    if {told, measured} in ({"t1", FLAIR}, {"t1", T2WI}):
        return None  # no T1 has the echo time of a T2, nor the other way round: one of both is wrong
    if family == "t1":
        return CE_T1WI if _has_agent(text or _plain(clues.text), clues.agent) else None
    # The first echo of a dual-echo T2 series is proton-density weighted, under the same description.
    if family == T2WI and (_is_gradient(clues) or (clues.echo_time is not None and 0 < clues.echo_time < 50)):
        return None
    return family


def _is_other(text: str) -> bool:
    if _OTHER.search(text) or (_GRADIENT.search(text) and _family_by_text(text) != "t1"):
        return True
    return bool(_SCOUT.search(text)) and _family_by_text(text) is None


def _plain(text: str) -> str:
    """Lower case, separators to blanks; `t2*` spelt out; "+" and "-" before a "c" kept, for they mean contrast."""
    text = text.lower().replace("t2*", "t2 star")
    text = re.sub(r"[_/\\.,;:()\[\]^=]+", " ", text)
    return re.sub(r"-(?!\s?c\b)", " ", text)


def _family_by_text(text: str) -> str | None:
    if _FLAIR.search(text):
        # "T1 FLAIR" is GE's inversion-prepared T1, not fluid-attenuated T2.
        return "t1" if _T1.search(text) and not _T2.search(text) else FLAIR
    if _T1.search(text):
        return "t1"
    return T2WI if _T2.search(text) else None


def _family_by_contrast(contrast: str) -> str | None:
    return {"FLUID_ATTENUATED": FLAIR, "T1": "t1", "T2": T2WI}.get(contrast.upper())


def _family_by_physics(clues: Clues) -> str | None:
    """The usual ranges at 1.5 and 3 T; gradient echoes with long echo time are T2*-weighted, hence none."""
    te, tr, ti = clues.echo_time, clues.repetition_time, clues.inversion_time
    if te is None or tr is None:
        return None
    if ti is not None and 1500 <= ti <= 3200 and te >= 60 and tr >= 4000:
        return FLAIR
    if te >= 70 and tr >= 2000 and not _is_gradient(clues) and (ti is None or ti < 1):
        return T2WI
    if te <= 30 and (tr <= 1200 or (ti is not None and 300 <= ti <= 1300)):
        return "t1"
    return None


def _is_gradient(clues: Clues) -> bool:
    """Gradient or echo-planar read-out: T2*-weighted, or diffusion."""
    scanning = {value.upper() for value in clues.scanning}
    return "EP" in scanning or ("GR" in scanning and "SE" not in scanning)


def _has_agent(text: str, agent: str) -> bool:
    """The description beats the agent field, which scanners keep filled for a whole visit, before injection too."""
    text = _BOTH.sub(" ", text)
    if _WITH_AGENT.search(_WITHOUT_AGENT.sub(" ", text)):
        return True
    return not _WITHOUT_AGENT.search(text) and not _NO_AGENT.fullmatch(_plain(agent).strip())
