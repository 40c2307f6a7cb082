"""Written English to the words that a reader says: numbers, money, times, symbols and punctuation.

The phonemizer needs words, not print. Rules cover what turns up in prompts and messages; what cannot be read aloud as
English (other scripts) is refused by name instead of being dropped in silence.
"""

from __future__ import annotations

import re
import unicodedata

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"))
_ORDINALS = {
    **{"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"},
    "twelve": "twelfth",
}
_CURRENCIES = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny")}
_SYMBOLS = {"&": "and", "%": "percent", "@": "at", "+": "plus", "=": "equals", "°": "degrees"}
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "th", "þ": "th", "ı": "i"}
)
_QUOTES = str.maketrans({character: "'" for character in "’‘ʼ`´′＇"})

_PHONE = re.compile(r"(?<!\d)(?:\d{3}[-.])?\d{3}[-.]\d{4}(?!\d)")
_MONEY = re.compile(r"([$€£])\s?(\d+(?:,\d{3})*)(?:\.(\d+))?(?:\s+(hundred|thousand|million|billion|trillion)\b)?")
_TIME = re.compile(r"(?<![\d:])(\d{1,2}):(\d{2})(?::\d{2})?(?!\d)(?:\s*([ap])\.?m\b\.?)?", re.IGNORECASE)
_HALF_DAY = re.compile(r"(\d)\s*([ap])\.?m\b\.?", re.IGNORECASE)
_ORDINAL = re.compile(r"(\d+(?:,\d{3})*)(?:st|nd|rd|th)\b", re.IGNORECASE)
_FRACTION = re.compile(r"(?<![\d/])(\d)\s?[/⁄]\s?([234])(?![\d/])")
_DECADE = re.compile(r"(?<![\d.])(\d{2,4})'?s\b")
_NUMBER = re.compile(r"(?<!\w)(-)?(\d+(?:,\d{3})*)?(?:\.(\d+))?(?!\d)|(\d+)")
_DOTTED = re.compile(r"\b(?:[a-z]\.){2,}(?:[a-z]\b)?")
_DETACHED = re.compile(r"(?<=[a-z]) '(?=(?:s|d|m|t|ll|re|ve)\b)")


def cardinal_words(number: int) -> str:
    """Say a whole number.

    Args:
        number (`int`): from 0 up to 999 trillion.

    Returns:
        `str`: words separated by spaces, American style (no "and").

    Raises:
        ValueError: if the number is negative or has more than 15 digits.

    Example:
        ```python
        >>> cardinal_words(250)
        'two hundred fifty'
        >>> cardinal_words(1_000_021)
        'one million twenty one'

        ```
    """
    if not 0 <= number < 10**15:
        raise ValueError(f"The number {number} cannot be said: give one from 0 to 999 trillion, or its digits apart.")
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")
    if number < 1000:
        rest = f" {cardinal_words(number % 100)}" if number % 100 else ""
        return f"{_ONES[number // 100]} hundred{rest}"
    size, name = next((size, name) for size, name in _SCALES if number >= size)
    rest = f" {cardinal_words(number % size)}" if number % size else ""
    return f"{cardinal_words(number // size)} {name}{rest}"


def ordinal_words(number: int) -> str:
    """Say a rank.

    Args:
        number (`int`): from 0 up to 999 trillion.

    Returns:
        `str`: words separated by spaces.

    Raises:
        ValueError: if the number is negative or has more than 15 digits.

    Example:
        ```python
        >>> ordinal_words(21), ordinal_words(30), ordinal_words(112)
        ('twenty first', 'thirtieth', 'one hundred twelfth')

        ```
    """
    head, _, last = cardinal_words(number).rpartition(" ")
    if last in _ORDINALS:
        last = _ORDINALS[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return f"{head} {last}".strip()


def _digit_words(digits: str) -> str:
    return " ".join(_ONES[int(digit)] for digit in digits)


def _year_or_cardinal(digits: str) -> str:
    if len(digits) > 15 or (len(digits) > 1 and digits[0] == "0"):
        return _digit_words(digits)
    number = int(digits)
    if len(digits) == 4 and (1100 <= number < 2000 or 2010 <= number < 2100):
        century, rest = divmod(number, 100)
        if rest == 0:
            return f"{cardinal_words(century)} hundred"
        return f"{cardinal_words(century)} {'oh ' if rest < 10 else ''}{cardinal_words(rest)}"
    return cardinal_words(number)


def _say_money(match: re.Match[str]) -> str:
    (unit, part), whole = _CURRENCIES[match[1]], match[2].replace(",", "")
    if match[4]:
        decimals = f" point {_digit_words(match[3])}" if match[3] else ""
        return f" {_cardinal_or_digits(whole)}{decimals} {match[4]} {unit}s "
    cents = int(match[3].ljust(2, "0")[:2]) if match[3] else 0
    said = []
    if int(whole) or not cents:
        said.append(f"{_cardinal_or_digits(whole)} {unit}{'' if int(whole) == 1 else 's'}")
    if cents:
        plural = "pence" if part == "penny" else part + "s"
        said.append(f"{cardinal_words(cents)} {part if cents == 1 else plural}")
    return f" {' '.join(said)} "


def _cardinal_or_digits(digits: str) -> str:
    return cardinal_words(int(digits)) if len(digits) <= 15 else _digit_words(digits)


def _say_time(match: re.Match[str]) -> str:
    hour, minute, half_day = int(match[1]), int(match[2]), match[3]
    if minute:
        said = f"{cardinal_words(hour)} {'oh ' if minute < 10 else ''}{cardinal_words(minute)}"
    else:
        said = cardinal_words(hour) + ("" if half_day or hour > 12 else " o'clock")
    return f" {said} {half_day + '.m. ' if half_day else ''}"


def _say_fraction(match: re.Match[str]) -> str:
    count, parts = int(match[1]), int(match[2])
    name = {2: "half", 3: "third", 4: "quarter"}[parts]
    if count != 1:
        name = "halves" if parts == 2 else name + "s"
    return f" {cardinal_words(count)} {name} "


def _say_decade(match: re.Match[str]) -> str:
    said = _year_or_cardinal(match[1])
    if said.endswith("y"):
        return f" {said[:-1]}ies "
    return f" {said}{'es' if said.endswith('x') else 's'} "


def _say_number(match: re.Match[str]) -> str:
    sign, whole, decimals, glued = match.groups()
    if glued:
        return f" {_year_or_cardinal(glued)} "
    if not whole and not decimals:
        return match[0]
    said = ["minus"] if sign else []
    if whole:
        said.append(_cardinal_or_digits(whole.replace(",", "")) if "," in whole else _year_or_cardinal(whole))
    if decimals:
        said += ["point", _digit_words(decimals)]
    return f" {' '.join(said)} "


def spoken_words(text: str) -> list[str]:
    """Split a written English sentence into the words that are said.

    Args:
        text (`str`): any English text. Case, punctuation and accents do not matter.

    Returns:
        `list[str]`: lower-case words of `a-z`, apostrophes and inner hyphens (`"well-known"` stays one word, as in the
        benchmarks' scoring); letter-by-letter abbreviations keep their dots (`"u.s."`).

    Raises:
        ValueError: if the text is not a string, or a word has letters outside the Latin alphabet.

    Note:
        A four-digit number from 1100 to 1999 or 2010 to 2099 is read as a year, as g2p_en does; `555-1234` digit by
        digit. A space before a clitic (`we 'd`, as in the Switchboard prompts) is closed, the rule of the
        Brain-to-Text '25 scoring.

    Example:
        ```python
        >>> spoken_words("It's 7:05, and I owe $2.50 -- see No. 3!")
        ["it's", 'seven', 'oh', 'five', 'and', 'i', 'owe', 'two', 'dollars', 'fifty', 'cents', 'see', 'no', 'three']

        ```
    """
    if not isinstance(text, str):
        raise ValueError(f"Text must be a string, but is {type(text).__name__}: {text!r}.")
    said = unicodedata.normalize("NFKC", text.translate(_QUOTES))
    said = _PHONE.sub(lambda match: f" {_digit_words(re.sub('[^0-9]', '', match[0]))} ", said)
    said = _MONEY.sub(_say_money, said)
    said = _TIME.sub(_say_time, said)
    said = _HALF_DAY.sub(r"\1 \2.m. ", said)
    said = _ORDINAL.sub(lambda match: f" {ordinal_words(int(match[1].replace(',', '')))} ", said)
    said = _FRACTION.sub(_say_fraction, said)
    said = _DECADE.sub(_say_decade, said)
    said = re.sub(r"(?<=\d)\s?[–—-]\s?(?=\d)", " to ", said)
    said = _NUMBER.sub(_say_number, said)
    for symbol, word in _SYMBOLS.items():
        said = said.replace(symbol, f" {word} ")
    said = unicodedata.normalize("NFD", said.lower().translate(_LETTERS))
    said = "".join(character for character in said if unicodedata.category(character) != "Mn")
    said = re.sub(r"\be\.g\.", " for example ", said)
    said = re.sub(r"\bi\.e\.", " that is ", said)
    said = _DOTTED.sub(lambda match: match[0].rstrip(".").replace(".", "\0") + "\0", said)
    said = said.replace("--", " ")
    said = "".join(c if c.isalpha() or c in "'-\0" else " " for c in said)
    said = _DETACHED.sub("'", said)
    words = [word.strip("-").replace("\0", ".") for word in said.split()]
    words = [word for word in words if any(character.isalpha() for character in word)]
    for word in words:
        if not word.isascii():
            raise ValueError(
                f"The word {word!r} of the text {text!r} has letters outside a-z: write it in English letters, or give "
                "the phonemes instead of the text."
            )
    return words
