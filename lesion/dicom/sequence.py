"""Tells which of the three sequences an MR image is from the attributes of its header.

Descriptions are free text, typed by whoever set up the protocol; three vendors' habits are covered by word lists (GE
"Ax T2 FLAIR", "+C Ax T1"; Siemens "t2_tirm_tra_dark-fluid", "t1_se_tra_KM"; Philips "T2W_TSE", "sT1W/SE CE"). Where
the text says nothing, the physics does: echo, repetition and inversion time. Where the two contradict each other it is
none; where both mislead, the user's series.csv decides (see `scan`).
"""

import functools
import re

from lesion.dicom.read import Attributes

FLAIR, CE_T1WI, T2WI = "flair", "ce_t1wi", "t2wi"
_T1 = "t1"  # with or without agent

# Words that make an image none of the three, whatever else the text says: scouts, diffusion, susceptibility,
# perfusion, angiography, spectroscopy, derived and composed images.
_OTHER_WORDS = re.compile(
    r"\b(?:loc|localizers?|scout|survey|pilot|plan|3 ?plane|cal|calib\w*|field ?map\w*|b0|shim|"
    r"e?dwi|dti|diff\w*|adc|e?adc|trace\w*|fa|tensor|ivim|dki|"
    r"swi|swan|venbold|svi|hemo|t2 ?star|t2s|medic|merge|"
    r"perf\w*|pwi|dsc|dce|asl|pcasl|cbf|cbv|mtt|ttp|tmax|bold|fmri|"
    r"mra|mrv|tof|angio\w*|inhance|pc ?3d|mip|minip|mrs|spectro\w*|press|csi|"
    r"sub|subtraction|stir|pdw?|pd ?fs|dual ?echo|mapit|t[12] ?maps?|screen ?save|report|dose)\b"
)
_GRADIENT_WORDS = re.compile(r"\b(?:gre|ffe|phase)\b")  # susceptibility-weighted, unless the text says T1
_CALIBRATION_WORDS = re.compile(r"\b(?:asset|sense|ref)\b")  # of a coil, unless the text names a weighting
_OTHER_IMAGE_TYPES = frozenset("LOCALIZER|PROJECTION IMAGE|MIP|MIN_IP|MPR|ADC|FA|TRACEW|PHASE MAP|PERFUSION".split("|"))
_OTHER_CONTRASTS = {"DIFFUSION", "PERFUSION", "T2_STAR", "PROTON_DENSITY", "FLOW_ENCODED"}
_FLAIR_WORDS = re.compile(r"\b(?:\w*flair\w*|dark ?fluid|darkfl|da fl|tirm|sp(?:ac|c)e? ir)\b|压水")
_T1_WORDS = re.compile(r"\b(?:[a-z]?t1\w*|mp ?rage|bravo|f?spgr|vibe|mpr|cube ?t1)\b")
_T2_WORDS = re.compile(r"\b(?:[a-z]?t2\w*|frfse)\b")
# "With and without contrast" is the name of an examination and says nothing about a series.
_WITH_AND_WITHOUT = re.compile(r"\b(?:w|with) ?(?:and|&|\+)? ?(?:w ?o|without)\b(?: contrast)?")
_WITH_AGENT = re.compile(
    r"\+ ?(?:c|gd)\b|\bc ?\+|"
    r"\b(?:post|ce\w{0,2}|cet1\w*|t1w?i?(?:ce|c|gd|km)|gad\w*|gd|dtpa|contrast|enh\w*|km|mdc)\b|增强"
)
_WITHOUT_AGENT = re.compile(
    r"\b(?:(?:pre|without|w ?o)(?: ?(?:con\w*|ce|gad\w*|gd))?|non? ?(?:con\w*|ce|gad\w*|gd)|nativ\w*|plain|unenhanced)"
    r"\b|(?:^|\s)- ?c\b|平扫"
)
_NO_AGENT = re.compile(r"(?:no(?:ne|t)?\b.*|n(?: a)?|[0 ]+(?:ml|cc)?|unknown|without\b.*|nil|keine?\b.*|无|没有|\W*)")


@functools.lru_cache(maxsize=4096)  # the slices of a series share their attributes
def classify(attributes: Attributes) -> str | None:
    """Returns "flair", "ce_t1wi" or "t2wi", or None for any other MR image."""
    image_types = {value.upper() for value in attributes.image_type}
    if image_types & _OTHER_IMAGE_TYPES or attributes.b_value:
        return None
    if attributes.acquisition_contrast.upper() in _OTHER_CONTRASTS:
        return None
    # The protocol's name is often that of the whole examination: the description goes before.
    texts = map(_plain, (attributes.description, attributes.protocol))
    text = next((text for text in texts if _weighting_by_text(text) or _is_other(text)), "")
    if _is_other(text):
        return None
    by_text = _weighting_by_text(text)
    by_physics = _weighting_by_contrast(attributes.acquisition_contrast) or _weighting_by_times(attributes)
    if {by_text, by_physics} in ({_T1, FLAIR}, {_T1, T2WI}):
        return None  # no T1 has the echo time of a T2, nor the other way round: one of both is wrong
    # "T2 SPACE" with a long inversion time: a FLAIR by its times, whatever it is called.
    weighting = FLAIR if by_text == T2WI and by_physics == FLAIR else by_text or by_physics
    if weighting == _T1:
        with_agent = _has_agent(text or _plain(attributes.description), attributes.contrast_agent)
        return CE_T1WI if with_agent else None
    if weighting == T2WI and (_is_gradient_echo(attributes) or 0 < (attributes.echo_time or 0) < 50):
        return None  # the first echo of a dual-echo series is proton-density weighted, under the same description
    return weighting


def _is_other(text: str) -> bool:
    if _OTHER_WORDS.search(text) or (_GRADIENT_WORDS.search(text) and _weighting_by_text(text) != _T1):
        return True
    return bool(_CALIBRATION_WORDS.search(text)) and _weighting_by_text(text) is None


def _plain(text: str) -> str:
    """Returns a text in lower case, separators as blanks, `t2*` spelt out; "+" and "-" before a "c" mean contrast."""
    text = text.lower().replace("t2*", "t2 star")
    text = re.sub(r"[_/\\.,;:()\[\]^=]+", " ", text)
    return re.sub(r"-(?!\s?c\b)", " ", text)


def _weighting_by_text(text: str) -> str | None:
    if _FLAIR_WORDS.search(text):
        # "T1 FLAIR" is GE's inversion-prepared T1, not fluid-attenuated T2.
        return _T1 if _T1_WORDS.search(text) and not _T2_WORDS.search(text) else FLAIR
    if _T1_WORDS.search(text):
        return _T1
    return T2WI if _T2_WORDS.search(text) else None


def _weighting_by_contrast(acquisition_contrast: str) -> str | None:
    return {"FLUID_ATTENUATED": FLAIR, "T1": _T1, "T2": T2WI}.get(acquisition_contrast.upper())


def _weighting_by_times(attributes: Attributes) -> str | None:
    """Returns the weighting by the usual ranges at 1.5 and 3 T; gradient echoes with long echo time are T2*: none."""
    te, tr, ti = attributes.echo_time, attributes.repetition_time, attributes.inversion_time
    if te is None or tr is None:
        return None
    if ti is not None and 1500 <= ti <= 3200 and te >= 60 and tr >= 4000:
        return FLAIR
    if te >= 70 and tr >= 2000 and not _is_gradient_echo(attributes) and (ti is None or ti < 1):
        return T2WI
    if te <= 30 and (tr <= 1200 or (ti is not None and 300 <= ti <= 1300)):
        return _T1
    return None


def _is_gradient_echo(attributes: Attributes) -> bool:
    """Returns whether the read-out is gradient or echo-planar: T2*-weighted, or diffusion."""
    scanning = {value.upper() for value in attributes.scanning_sequence}
    return "EP" in scanning or ("GR" in scanning and "SE" not in scanning)


def _has_agent(text: str, contrast_agent: str) -> bool:
    """Returns whether an agent was given.

    The description beats the agent field, which scanners keep filled for a whole visit, before injection too.
    """
    text = _WITH_AND_WITHOUT.sub(" ", text)
    if _WITH_AGENT.search(_WITHOUT_AGENT.sub(" ", text)):
        return True
    return not _WITHOUT_AGENT.search(text) and not _NO_AGENT.fullmatch(_plain(contrast_agent).strip())
