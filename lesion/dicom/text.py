"""Reads text whose encoding nobody tells: headers without SpecificCharacterSet, tables that are not UTF-8.

Each reading is scored by how familiar its characters are there: characters of radiology first, then the common half of
a script, then the rest. Short texts stay a guess, so `candidates` gives every reading that makes sense.
"""

import re
import unicodedata

# Where two scripts make sense of the same bytes, as 조영 and 炼康, these tell which is meant.
_COMMON = frozenset(
    "增强扫描造影平轴位矢状冠定像图脑头颅部病例患者号姓名男女前后左右上下压脂水权序列加快速自旋反转恢复弥散灌注波谱薄层重建"
    "轻度原始医院磁共振检查胶质瘤炎期动静脉中大小一二三四五六七八九十不无有的是未处理化减影黑血垂体眼眶膝关节肝颈腰椎住"
    "张王李刘陈杨赵黄周吴徐孙朱马胡郭林何高梁"
    "頭撮像断面軸状脳症患者番号造影前後左右強調画水抑制単純検査位置決"
    "조영증강전후두부뇌축상시관횡단면환자례병리번호스캔영상검사위치결정남여좌우김이박최정강경추무릎간척지방억제"
)
_PUNCTUATION = "\u00b7\u00d7\u2010-\u203a\u2103\u3000-\u303f\uff00-\uff5e"
_SCRIPTS = {  # in the order in which they are preferred
    "gb18030": re.compile(f"[\u4e00-\u9fff{_PUNCTUATION}]*"),
    "cp932": re.compile(f"[\u3040-\u30ff\u4e00-\u9fff\uff61-\uff9f{_PUNCTUATION}]*"),
    "euc_kr": re.compile(f"[\uac00-\ud7a3{_PUNCTUATION}]*"),
    "cp1251": re.compile(r"[\u0400-\u045f\u0490\u0491\u00a0-\u00bf\u2010-\u203a№™€]*"),
    "cp1252": re.compile(r"[\u00a0-\u00ff\u0152-\u0192\u02c6\u02dc\u2010-\u203a™€]*"),
}
# Short words of GB18030 are valid UTF-8 by accident, of letters that nobody uses here: 平扫 is ƽɨ.
_USUAL_UTF8 = re.compile(
    f"[\u00a0-\u017f\u0400-\u045f\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3\u20ac\u2122{_PUNCTUATION}]*"
)
_LONG = 5  # characters above ASCII, in which such an accident is past belief
_CLEAR_CYRILLIC = re.compile(r"[а-яё]+", re.IGNORECASE)
# What stands among letters only where bytes are read in the wrong script, as in ХЕО° for 张伟.
_ODD = re.compile(r"[^\W\d_][¡-ª¬-º¼-¿№]|[¡-ª¬-º¼-¿№][^\W\d_]|[^\W\d_][^\w\s][^\W\d_]")
_RUN = re.compile(r"[^\x00-\x7f]+")
_WORD = re.compile(r"[^\W\d_]+")


def decode(raw: bytes) -> str:
    """Returns the most plausible reading of `raw`; see `candidates`."""
    return candidates(raw)[0]


def candidates(raw: bytes) -> list[str]:
    """Returns all plausible readings of `raw`, best first; one at least.

    ASCII is read as it is. Valid UTF-8 goes first, unless it is a short text of unusual letters. The others
    are GB18030, Shift-JIS, EUC-KR, cp1251 and cp1252, each only where every character is of its script; Latin-1 where
    nothing else is left.
    """
    if raw.isascii():
        return [raw.decode("ascii")]
    scores: dict[str, float] = {}
    for codec, script in _SCRIPTS.items():
        text = _try(raw, codec)
        if text is not None and script.fullmatch(_above_ascii(text)):
            scores.setdefault(text, _score(text, codec))
    readings = sorted(scores, key=lambda text: -scores[text])
    utf8 = _try(raw, "utf-8")
    if utf8 is not None:
        composed = unicodedata.normalize("NFC", utf8)
        is_usual = _USUAL_UTF8.fullmatch(_above_ascii(composed)) or len(_above_ascii(utf8)) >= _LONG
        readings = [utf8, *readings] if is_usual else [*readings, utf8]
    return list(dict.fromkeys(readings)) or [raw.decode("latin-1")]


def _above_ascii(text: str) -> str:
    return "".join(char for char in text if not char.isascii())


def _try(raw: bytes, codec: str) -> str | None:
    try:
        return raw.decode(codec)
    except UnicodeDecodeError:
        return None


def _score(text: str, codec: str) -> float:
    """Returns how familiar the characters of `text` above ASCII are on average, between 0 and 1."""
    if codec in ("cp1251", "cp1252"):
        scores = _letter_scores(text, cyrillic=codec == "cp1251")
    else:
        scores = [_ideograph_score(char, codec, text) for char in _above_ascii(text)]
    return sum(scores) / len(scores)


def _ideograph_score(char: str, codec: str, text: str) -> float:
    """Returns how familiar a character of `text` is in a script of two bytes."""
    if char in _COMMON:
        return 1
    lead = char.encode("gb2312" if codec == "gb18030" else codec, "replace")[0]
    if codec == "gb18030":  # its commoner characters lie first, by sound; those beyond GB2312 are "?"
        return 0.6 if 0xA1 <= lead < 0xD8 else 0.3 if lead >= 0xD8 else 0.1
    if codec == "cp932":  # kana, the commoner kanji, and the rest with the katakana of one byte
        return 1 if lead in (0x82, 0x83) else 0.6 if lead == 0x81 or 0x88 <= lead < 0x98 else 0.1
    # Half of the common Chinese characters share their bytes with Korean ones: all of many hardly do.
    return min(0.5 + 0.03 * len(_above_ascii(text)), 0.7)


def _letter_scores(text: str, *, cyrillic: bool) -> list[float]:
    """Returns how familiar each character above ASCII is in its word."""
    scores = []
    for run in filter(_ODD.search, _RUN.findall(text)):
        scores += [0.1] * len(run)
    text = _RUN.sub(lambda run: "?" if _ODD.search(run[0]) else run[0], text)
    scores += [0.5] * len(_above_ascii(_WORD.sub("", text)))  # °, ±, dashes
    for word in _WORD.findall(text):
        high = len(_above_ascii(word))
        is_cased = word in (word.lower(), word.upper(), word.capitalize())
        if high == len(word) == 1:
            score = 0.4 if cyrillic else 0.3 if word.isupper() else 0.5
        elif cyrillic:  # a word of Cyrillic has no other letters
            score = 0.1 if high < len(word) or not is_cased else 0.9 if _CLEAR_CYRILLIC.fullmatch(word) else 0.3
        else:  # one of Latin letters has hardly ever accents on most of them
            score = 0.9 if high * 2 <= len(word) or (is_cased and high < min(len(word), 3)) else 0.1
        scores += [score] * high
    return scores
