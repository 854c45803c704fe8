"""Finds groups of words in the texts of headers, which people type in any language, case and spelling.

`sequences.toml` documents the form of a word: `*` for further letters, `?` for one or none, `<group>` for any word of a
group, a blank for any separator or none.
"""

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence

IGNORED, PARTS = "ignored", "parts"  # groups with a meaning of their own
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"  # scripts that do not part words
_LETTERS = str.maketrans("łøđı", "lodi")  # that Unicode does not take apart
_RUN_TOGETHER = re.compile("t1|t2|flair|pd|km|gad|gd|mdc|contrast|kontrast")
_MAX_DEPTH = 3  # of groups in groups


class NoSuchGroupError(ValueError):
    """A word names a group that there is not; `word` is the word."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word = word


class Words:
    """Groups of words, compiled.

    The group `parts` holds what run-together words are made of, `ignored` what is taken out of every text first.
    """

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        """Compiles the groups {name: words}; raises a NoSuchGroupError if a word names a group that is not there."""
        self._groups = dict(groups)
        part = "|".join(map(re.escape, sorted(groups[PARTS], key=len, reverse=True)))
        self._part, self._parts = re.compile(part), re.compile(f"(?:{part})+")
        self._patterns = {name: re.compile(self._expression(name)) for name in groups if name != PARTS}
        self.plain = functools.lru_cache(maxsize=16384)(self._plain)

    def __contains__(self, group: str) -> bool:
        """Returns whether there is a group of this name."""
        return group in self._patterns

    def find(self, group: str, text: str) -> bool:
        """Returns whether a plain text has a word of a group."""
        return self._patterns[group].search(text) is not None

    def begins(self, group: str, text: str) -> bool:
        """Returns whether a plain text begins with a word of a group."""
        return self._patterns[group].match(text) is not None

    def is_word(self, group: str, text: str) -> bool:
        """Returns whether a plain text is a word of a group and nothing else."""
        return self._patterns[group].fullmatch(text) is not None

    def without(self, group: str, text: str) -> str:
        """Returns a plain text with ";" in the place of each word of a group."""
        return self._patterns[group].sub(" ; ", text)

    def _plain(self, text: str) -> str:
        """Returns a text as the other methods take it: small letters, no accents, run-together words taken apart."""
        return self.without(IGNORED, " ".join(map(self._take_apart, _normalize(text).split())))

    def _take_apart(self, word: str) -> str:
        if len(word) > 3 and _RUN_TOGETHER.search(word) and self._parts.fullmatch(word):
            return " ".join(self._part.findall(word))
        return word

    def _expression(self, group: str, depth: int = 0) -> str:
        """Returns the regular expression of a group; longer words go before shorter ones."""
        words = sorted(self._groups[group], key=len, reverse=True)
        return "|".join(self._word_expression(word, group, depth) for word in words) or r"(?!)"

    def _word_expression(self, word: str, group: str, depth: int) -> str:
        expression = ""
        for part in re.split(r"(<\w+>|\*|\?| )", word):
            if part.startswith("<"):
                if part[1:-1] not in self._groups or depth == _MAX_DEPTH:
                    raise NoSuchGroupError(word, f"{group} names a group {part} that there is not")
                expression += f"(?:{self._expression(part[1:-1], depth + 1)})"
            else:
                expression += {"*": r"\w*", "?": r"\w?", " ": " ?"}.get(part) or re.escape(_normalize(part))
        if re.search(f"[{_CJK}]", expression):
            return expression
        begin = r"(?<!\w)" if re.match(r"[\w*?\-]", word) else ""
        end = r"(?!\w)" if re.search(r"[\w*?\-]$", word) else ""
        return f"{begin}{expression}{end}"


def _normalize(text: str) -> str:
    """Returns a text in small letters without accents, separators as blanks; signs that may mean an agent stay."""
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    text = "".join(char for char in text if not unicodedata.combining(char) or "\u3099" <= char <= "\u309a")
    text = unicodedata.normalize("NFC", text).translate(_LETTERS).replace("t2*", "t2star")
    text = re.sub(r"[‐-―−]", "-", text)
    text = re.sub(r"(?<=\w)-(?=\w)", " ", text)
    text = re.sub(rf"(?<=[{_CJK}])(?=[a-z0-9+-])|(?<=[a-z0-9+-])(?=[{_CJK}])", " ", text)
    return re.sub(r"[^\w+-]+|_", " ", text).strip()
