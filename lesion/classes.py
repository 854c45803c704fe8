"""The names of the two classes that a dataset tells apart; in comments and docstrings they are those of the paper.

They are given once, to launch.prepare; cohort.json keeps them and every run copies them into its config.json.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lesion.errors import UserError

NOT_NAMES = ("unlabeled", "skip", "undo")  # words that tables use beside the classes
_WORD = re.compile(r"[A-Za-zÀ-ÖØ-öø-ÿ][A-Za-zÀ-ÖØ-öø-ÿ0-9-]{0,29}")  # letters that figures and LaTeX can show


class Classes(NamedTuple):
    """The names of label 0 and of label 1, the positive class; indexed by a label, they give its name."""

    negative: str = "encephalitis"
    positive: str = "glioma"

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Classes":
        """Returns the classes of cohort.json, or of `data` in a run's config.json; without any, those of the paper."""
        return cls(*record.get("classes", ()))

    @property
    def are_of_paper(self) -> bool:
        """Whether results may be set beside those of the paper."""
        return self == PAPER

    @property
    def by_word(self) -> dict[str, int]:
        """What may stand for a class in a table, in lower case, and its label."""
        return {word: label for label, name in enumerate(self) for word in (name.lower(), str(label))}


PAPER = Classes()


def parse(words: Sequence[str]) -> Classes:
    """Returns the classes that a command line names, the negative one first.

    Raises:
        UserError: they are not two different plain words.
    """
    names = [unicodedata.normalize("NFC", word) for word in words]
    wrong = [name for name in names if not _WORD.fullmatch(name) or name.lower() in NOT_NAMES]
    if len({name.lower() for name in names}) != 2 or len(names) != 2 or wrong:
        raise UserError(
            f"--classes={','.join(words)}: name two different classes, each one word of Latin letters, digits and "
            f"hyphens, at most 30, but not {' or '.join(NOT_NAMES)}: --classes=meningioma,glioma"
        )
    return Classes(*names)
