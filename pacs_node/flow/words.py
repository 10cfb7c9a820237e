"""What the words of a header say: body part, view, kind of ECG. English, Japanese and other common languages.

Pure: text in, answers out. Full-width and half-width forms are one, accents and underscores do not count, and a
word ends where its letters end: "胸部PA", "CHEST_PA" and "ＰＡ" all say PA, "PAEDIATRIC" does not.
"""

from __future__ import annotations

import re
import unicodedata


def _words(latin: str, east_asian: str = "") -> re.Pattern[str]:
    """A pattern of whole words in Latin letters and of character sequences that need no boundary."""
    pattern = rf"(?<![a-z])(?:{latin})(?![a-z])"
    return re.compile(f"{pattern}|{east_asian}" if east_asian else pattern, re.I)


_TO = r"\s?(?:->|=>|→|⇒|>)\s?"
_LUNG = r"chest|thora(?:x|cic)|torax|torace|cxr|lungs?|lunge|brustkorb|poumons?"

CHEST = _words(_LUNG, "胸|肺野")
NOT_CHEST = _words(
    r"(?:thoracic|dorsal|t|th|c|cervical|l|lumbar|bws)[- ]?spine|spine|bws|wirbelsaule|ribs?|rippen|cotes|costal"
    r"|sternum|clavicles?|shoulders?|scapulae?|abdomen|abd|abdominal|kub|pelvis|neck|babygram"
    r"|thoraco-?lumbar|thoraco-?abdominal",
    r"胸椎|胸腰|腰椎|[頸頚]椎|肋骨|肋弓|胸骨|胸鎖|鎖骨|肩|腹部|胸腹",
)
PA = _words(rf"p(?:\.\s?|[-/])?a\.?|p{_TO}a|postero-?\s?anter\w*|dorso-?ventral", "後前|背腹")
AP = _words(rf"a(?:\.\s?|[-/])?p\.?|a{_TO}p|antero-?\s?poster\w*|ventro-?dorsal", "前後|腹背")
LATERAL = _words(
    rf"lat\.?|lateral\w*|ll|rl|lld|rld|decub\w*|obl\.?|oblique|schrag|rao|lao|rpo|lpo|perfil|profile?|seitlich"
    rf"|l{_TO}r|r{_TO}l",
    "側面|斜位|側臥位|デクビタス",
)
FRONTAL = _words("frontal|front|face|frente", "正面")
BEDSIDE = _words(
    r"portable|port|mobile|bedside|supine|recumbent|stretcher|trolley|icu|nicu|liegend|bett\w*|decubito|coucher?",
    "ポータブル|(?:背|仰)?臥位|回診|病室|病棟撮影|ベッドサイド",
)
SPECIAL = _words(
    r"(?:apical[- ])?lordotic|apical|apices|apicogram|expirat\w*|expiry|tomo\w*|subtract\w*|dual[- ]?energy|bone|bones"
    r"|soft[- ]?tissue|suppress\w*|(?:line|tube|catheter)\s?enhanc\w*|stitch\w*|cad|phantom",
    "肺尖|呼気|断層|骨画像|軟部|サブトラクション|ファントム",
)
"""Projections of the chest, or pictures computed from one, that are not the plain inspiratory film."""

ECG = _words(
    r"ecg|ekg|12[- ]?leads?|(?:electro|elektro|eletro|elettro)-?[ck]ardiogra\w*",
    "心電図|心電圖|12誘導|十二誘導",
)
NOT_RESTING = _words(
    r"holter|stress|exercise|treadmill|ergomet\w*|ambulatory|event|loop|24[- ]?h\w*|monitor\w*|telemetry"
    r"|gated|gating|trigger\w*|signal[- ]averaged|late potentials?|vectorcardiogra\w*|belastung\w*|langzeit\w*|effort",
    "負荷|ホルター|マスター|トレッドミル|エルゴ|24時間|イベント|モニター|加算平均|遅延電位",
)


def plain(value: str) -> str:
    """`value` in one form: full width and half width folded, accents off Latin letters, separators as spaces."""
    # What is ASCII is in that form already; most headers are.
    folded = value if value.isascii() else "".join(map(_without_accent, unicodedata.normalize("NFKC", value)))
    return " ".join(re.sub(r"[_^\\|;,]", " ", folded).split())


def _without_accent(letter: str) -> str:
    """The ASCII letter under an accent; every other character, such as a voiced kana, as it is."""
    base = unicodedata.normalize("NFD", letter)[0]
    return base if base.isascii() else letter


def views_named(value: str) -> frozenset[str]:
    """Which of PA, AP and LATERAL a text names.

    A lateral beside a frontal view without more ("胸部正面・側面") names a whole examination and so no view.
    """
    found = {name for name, pattern in (("PA", PA), ("AP", AP), ("LATERAL", LATERAL)) if pattern.search(value)}
    if FRONTAL.search(value):
        found.discard("LATERAL")
    return frozenset(found)


def names_chest(value: str) -> bool | None:
    """True if the text names the chest and nothing else, False if another part, None if it names none."""
    if NOT_CHEST.search(value):
        return False
    return True if CHEST.search(value) else None
