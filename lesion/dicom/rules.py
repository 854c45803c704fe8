"""Tells which sequence a series is by the rules of `sequences.toml`, or of a file like it.

The rules are ordered: the first whose conditions hold decides. The file's head documents the conditions and the form of
words. A T1 is split afterwards into with and without agent, by its name and the agent field: see `Rules.find_agent`.
"""

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lesion.dicom import SEQUENCES
from lesion.dicom.read import Attributes
from lesion.dicom.words import IGNORED, PARTS, NoSuchGroupError, Words
from lesion.errors import UserError

DEFAULT = Path(__file__).with_name("sequences.toml")
NONE, T1, UNKNOWN = "none", "t1", "unknown"
_SECTIONS = {"words", "body", "agent", "reformat", "rule"}
_AGENT_GROUPS = {"both", "without", "with", "field_none", "negation", "negator"}
_WORD_CONDITIONS, _BODY_CONDITIONS = {"text", "and_text", "not_text"}, {"body", "not_body"}
_VALUES = {"image_type", "scanning_sequence", "sequence_variant", "acquisition_contrast"}
_RANGES = {"echo_time_ms", "repetition_time_ms", "inversion_time_ms", "b_value"}
_CONDITIONS = {*_WORD_CONDITIONS, *_BODY_CONDITIONS, *_VALUES, *(f"not_{name}" for name in _VALUES), *_RANGES}
_CONDITIONS.add("all_image_type")


class Verdict(NamedTuple):
    """What the rules say of a series.

    Attributes:
        sequence: a key of `SEQUENCES`, "t1" (whose agent is to be told), or "none".
        rule: name of the rule that decided; empty if none held.
        because: in words.
        reformat: computed from the slices of another series.
    """

    sequence: str
    rule: str
    because: str
    reformat: bool = False


class Agent(NamedTuple):
    """What a T1's header says of the agent: by its name True, False or None (silent), and whether the field has one."""

    by_name: bool | None
    by_field: bool


class _Rule(NamedTuple):
    name: str
    sequence: str
    because: str
    conditions: Mapping[str, Any]


class Rules:
    """The rules of one file.

    Attributes:
        with_agent: sequence of a T1 with agent.
        without_agent: sequence of a T1 without agent.
    """

    def __init__(self, path: Path = DEFAULT) -> None:
        """Reads a file of rules.

        Raises:
            UserError: the file cannot be read or says what cannot be done; names the line.
        """
        self._path = path
        try:
            self._text = path.read_text(encoding="utf-8")
            content = tomllib.loads(self._text)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UserError(f"{path}: {error}: correct it, or leave out --rules") from error
        for name in content.keys() - _SECTIONS:
            raise self._error(name, f"there is no section {name}: it may be one of {', '.join(sorted(_SECTIONS))}")
        sections = {name: content.get(name, {}) for name in ("words", "body", "agent")}
        self.with_agent = self._sequence("with_agent", sections["agent"].pop("with_agent", None))
        self.without_agent = self._sequence("without_agent", sections["agent"].pop("without_agent", None))
        self._words = self._compile_words(sections)
        self._reformat = self._conditions("[reformat]", content.get("reformat", {}))
        self._rules = [self._rule(rule) for rule in content.get("rule", [])]
        used = {group for rule in self._rules for name in _WORD_CONDITIONS for group in rule.conditions.get(name, ())}
        self._text_groups = sorted(used - sections["agent"].keys())
        self._body_groups = sorted(sections["body"])

    def classify(self, attributes: Attributes) -> Verdict:
        """Returns the verdict of the first rule that holds."""
        return _classify(self, attributes)

    def find_agent(self, attributes: Attributes) -> Agent:
        """Returns what a header says of the agent: its description, else the protocol; and its agent field."""
        return _find_agent(self, attributes)

    def _find_agent(self, attributes: Attributes) -> Agent:
        words = self._words
        description, protocol = map(words.plain, (attributes.description, attributes.protocol))
        by_name = self._agent_by_name(description)
        if by_name is None and self._naming_text(attributes) == protocol:
            by_name = self._agent_by_name(protocol)
        field = re.sub("[; ]+", " ", words.without("both", words.plain(attributes.agent))).strip()
        empty = not re.search(r"\w", field) or words.is_word("field_none", field)
        negated = any(words.begins(group, field) for group in ("negation", "negator", "without"))
        return Agent(by_name, not (empty or negated))

    def sequence_alone(self, attributes: Attributes) -> str | None:
        """Returns the sequence of a header of which nothing else is known, a key of `SEQUENCES` or None."""
        sequence = self.classify(attributes).sequence
        if sequence == T1:
            by_name, by_field = self.find_agent(attributes)
            sequence = self.with_agent if (by_field if by_name is None else by_name) else self.without_agent
        return sequence if sequence in SEQUENCES else None

    def _agent_by_name(self, text: str) -> bool | None:
        text = self._words.without("both", text)
        rest = self._words.without("without", text)
        if self._words.find("with", rest):
            return True
        return False if rest != text else None

    def _naming_text(self, attributes: Attributes) -> str:
        """Returns the description, or the protocol where the description has no word of any rule; plain."""
        texts = [self._words.plain(text) for text in (attributes.description, attributes.protocol)]
        return next((text for text in texts if self._has_any(self._text_groups, text)), texts[0])

    def _body_text(self, attributes: Attributes) -> str:
        """Returns the first text that names a part of the body; plain."""
        fields = attributes.description, attributes.protocol, attributes.body_part, attributes.study_description
        texts = map(self._words.plain, fields)
        return next((text for text in texts if self._has_any(self._body_groups, text)), "")

    def _has_any(self, groups: Sequence[str], text: str) -> bool:
        return any(self._words.find(group, text) for group in groups)

    def holds(self, conditions: Mapping[str, Any], attributes: Attributes) -> bool:
        """Returns whether all conditions hold for a header."""
        text, body = self._naming_text(attributes), self._body_text(attributes)
        for name, wanted in conditions.items():
            field = name.removeprefix("not_").removeprefix("and_").removeprefix("all_")
            if field in ("text", "body"):
                found = self._has_any(wanted, text if field == "text" else body)
            elif field in _RANGES:
                value = getattr(attributes, field)
                found = value is None if wanted == UNKNOWN else value is not None and wanted[0] <= value <= wanted[1]
            else:
                given = getattr(attributes, field)
                values = {value.upper().strip() for value in ([given] if isinstance(given, str) else given)}
                found = values >= set(wanted) if name.startswith("all_") else bool(values & set(wanted))
            if found == name.startswith("not_"):
                return False
        return True

    def _compile_words(self, sections: Mapping[str, Mapping[str, Any]]) -> Words:
        for section, names in (("words", {PARTS, IGNORED}), ("agent", _AGENT_GROUPS)):
            for name in names - sections[section].keys():
                raise self._error(f"[{section}]", f"the section {section} has no {name}")
        groups = {name: words for section in sections.values() for name, words in section.items()}
        for name, words in groups.items():
            if not (isinstance(words, list) and all(isinstance(word, str) and word for word in words)):
                raise self._error(name, f"{name} is no list of words")
        try:
            return Words(groups)
        except NoSuchGroupError as error:
            raise self._error(error.word, str(error)) from error

    def _rule(self, rule: Mapping[str, Any]) -> _Rule:
        name = rule.get("name", "")
        if not isinstance(name, str) or not name:
            raise self._error("[[rule]]", "a rule has no name")
        conditions = {key: value for key, value in rule.items() if key not in ("name", "is", "because")}
        because = str(rule.get("because", "")) or name
        return _Rule(name, self._sequence(name, rule.get("is")), because, self._conditions(name, conditions))

    def _sequence(self, name: str, sequence: Any) -> str:
        """Returns a sequence of the file, checked."""
        known = [*SEQUENCES, T1, NONE]
        if sequence not in known:
            raise self._error(name, f"{name} is {sequence!r}: it may be one of {', '.join(known)}")
        return sequence

    def _conditions(self, name: str, conditions: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the conditions of a rule, checked."""
        for key, value in conditions.items():
            if key not in _CONDITIONS:
                raise self._error(name, f"{name} has a condition {key}: there are {', '.join(sorted(_CONDITIONS))}")
            if key in _RANGES:
                numbers = isinstance(value, list) and len(value) == 2 and all(isinstance(x, int | float) for x in value)
                if not (value == UNKNOWN or (numbers and value[0] <= value[1])):
                    raise self._error(name, f"{name}: {key} is no [lowest, highest], nor {UNKNOWN!r}")
            elif not (isinstance(value, list) and value and all(isinstance(x, str) for x in value)):
                raise self._error(name, f"{name}: {key} is no list of texts")
            elif key in _WORD_CONDITIONS | _BODY_CONDITIONS and (missing := [x for x in value if x not in self._words]):
                raise self._error(name, f"{name}: {key} names words that there are not: {', '.join(missing)}")
        return conditions

    def _error(self, near: str, problem: str) -> UserError:
        """Returns an error that names the line on which `near` first stands."""
        lines = self._text.splitlines()
        number = next((i for i, line in enumerate(lines, 1) if near in line.partition("#")[0]), 1)
        return UserError(f"{self._path} line {number}: {problem}")


@functools.lru_cache(maxsize=4096)  # the slices of a series share their attributes
def _classify(rules: Rules, attributes: Attributes) -> Verdict:
    reformat = bool(rules._reformat) and rules.holds(rules._reformat, attributes)
    for rule in rules._rules:
        if rules.holds(rule.conditions, attributes):
            return Verdict(rule.sequence, rule.name, rule.because, reformat)
    return Verdict(NONE, "", "neither its name nor its times tell a sequence", reformat)


@functools.lru_cache(maxsize=4096)
def _find_agent(rules: Rules, attributes: Attributes) -> Agent:
    return rules._find_agent(attributes)
