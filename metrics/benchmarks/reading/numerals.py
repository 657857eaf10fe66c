"""Numbers that are written as words: "twenty-five point two", "a minute and a half", "三十二点五"."""

import re

from metrics.benchmarks.reading.vocabulary import CHINESE_DIGITS, CHINESE_POWERS, NUMBER_WORDS, UNITS

HAN = "零一二三四五六七八九〇两兩十百千"
CHINESE = re.compile(
    rf"(?<![{HAN}])([{HAN}]{{1,9}}+)(?:点([零一二三四五六七八九〇]{{1,9}}+))?(?=半?(?:毫秒|秒|分|小时|小時|時間))"
)
ENGLISH_UNITS = "|".join(sorted((word for word in UNITS if word.isascii() and len(word) > 2), key=len, reverse=True))
ONES = "|".join(word for word, value in NUMBER_WORDS.items() if value < 10)
TENS = "|".join(word for word, value in NUMBER_WORDS.items() if value >= 20)
BELOW_100 = rf"(?:(?:{TENS})(?:[\s-](?:{ONES}))?|{'|'.join(sorted(NUMBER_WORDS, key=len, reverse=True))})"
NUMBER = rf"{BELOW_100}(?:\shundred(?:\s(?:and\s)?{BELOW_100})?)?(?:\spoint(?:\s(?:{ONES})){{1,3}})?"
SPELLED = re.compile(rf"\b{NUMBER}\b(?=\s+(?:and a half\s+)?(?:{ENGLISH_UNITS})\b)")
PAIRED = re.compile(rf"\b({NUMBER})(\s+(?:to|and|until|through|-)\s+)(?=\d[\d.:]*\s+(?:{ENGLISH_UNITS})\b)")
BEHIND_MINUTES = re.compile(
    rf"\b(\d{{1,3}} ?(?:minutes?|mins?)) ({BELOW_100}|[1-5]?\d)"
    r"(?=\s*(?:$|[.,;)\n-]|\b(?:to|until|till|through|and|in)\b))"
)
"""Seconds without their unit: "2 minutes 30"."""
ORDINAL = re.compile(
    r"(?<=\d)(?:st|nd|rd|th)(?= (?:second|minute|hour)s?\b"
    r"| ?(?:and|to|until|through|-) ?(?:the )?\d{1,5}(?:st|nd|rd|th) (?:second|minute|hour)s?\b)"
)
PRIMES = re.compile(r"(?<![\d'])(\d{1,3})'(\d{2})(?:\"|'')?")
ISO = re.compile(r"\bpt(?=\d)")
HALVES = (
    (
        re.compile(rf"\b(\d+(?:\.\d+)?)\s+and\s+a\s+half\s+({ENGLISH_UNITS})\b"),
        lambda m: f"{float(m[1]) + 0.5:g} {m[2]}",
    ),
    (re.compile(r"\b(?:a|one|1) (minute|hour|second) and a half\b"), lambda m: f"1.5 {m[1]}"),
    (re.compile(r"\bhalf an? (minute|hour|second)\b"), lambda m: f"0.5 {m[1]}"),
    (re.compile(r"\ban? (minute|hour)\b(?= (?:and|to|until|in\b|mark))"), lambda m: f"1 {m[1]}"),
)


def spelled_out(text: str) -> str:
    """The text with digits for numbers in words that measure a time, and plain forms of 12th second and 1'05"."""
    text = ISO.sub(" ", PRIMES.sub(r"\1:\2", ORDINAL.sub("", text)))
    text = CHINESE.sub(lambda match: chinese(match[1], match[2]), text)
    text = SPELLED.sub(lambda match: english(match[0]), text)
    text = BEHIND_MINUTES.sub(
        lambda match: f"{match[1]} {match[2] if match[2].isdecimal() else english(match[2])} seconds", text
    )
    text = PAIRED.sub(lambda match: english(match[1]) + match[2], text)
    for pattern, value in HALVES:
        text = pattern.sub(value, text)
    return text


def english(words: str) -> str:
    """ "twenty five point two" -> "25.2"."""
    whole, _, decimals = words.partition("point")
    total = 0
    for word in re.split(r"[\s-]+", whole.strip()):
        if word == "hundred":
            total = max(total, 1) * 100
        else:
            total += NUMBER_WORDS.get(word, 0)
    digits = "".join(str(NUMBER_WORDS[word]) for word in decimals.split())
    return f"{total}.{digits}" if digits else str(total)


def chinese(whole: str, decimals: str | None) -> str:
    """ "三十二", "五" -> "32.5"."""
    if not set(whole) & CHINESE_POWERS.keys():
        value = int("".join(str(CHINESE_DIGITS[digit]) for digit in whole)) if len(whole) < 10 else 0
    else:
        value, digit = 0, 0
        for character in whole:
            if character in CHINESE_POWERS:
                value += max(digit, 1) * CHINESE_POWERS[character]
                digit = 0
            else:
                digit = CHINESE_DIGITS[character]
        value += digit
    return f"{value}." + "".join(str(CHINESE_DIGITS[digit]) for digit in decimals) if decimals else str(value)
