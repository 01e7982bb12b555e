"""What a million tokens of each model cost: a file of prices, read at start and asked on every call.

Knows the file's form (docs/prices.md), and which of its entries a model falls under. What a call comes to is
`gateway.metering.cost`'s business. Money is integer micro-dollars. A model that no entry names is unpriced, which is
not the same as free.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from gateway.configuration.file import PRICES_FILE
from gateway.configuration.layers import Layer
from gateway.configuration.problems import Origin
from gateway.configuration.problems import Path as Place
from gateway.configuration.yaml_text import BadTextError, YamlReader
from gateway.terms import matches

DEFAULT_FILE = PRICES_FILE
UNIT = "microusd_per_million_tokens"
"""What every amount in the file is; the file says so itself."""

MIN_MICROUSD, MAX_MICROUSD = 1_000, 10**12
"""Of a million tokens. Under a tenth of a cent it was dollars that were written, or cents."""

_REMEMBERED = 4096
_LONGEST_REMEMBERED = 256
"""Whoever calls chooses the names, and would choose how much is kept."""
_MAX_BYTES = 16 * 1024 * 1024
_MAX_TOKENS = 2**53

_WHOLE_NUMBER = re.compile(r"[0-9]+(?:_[0-9]+)*")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

_REQUIRED = ("input", "output")
_DEFAULTS = {
    "cached": "input",
    "cache_write": "input",
    "reasoning": "output",
    "audio_input": "input",
    "audio_output": "output",
    "image_input": "input",
    "image_output": "output",
}
"""Kinds of tokens that may be left out, each with the one whose price it then has."""
_SECONDS = "audio_seconds"
_KINDS = (*_REQUIRED, *_DEFAULTS, _SECONDS)


class Rates(msgspec.Struct, frozen=True, gc=False):
    """Micro-dollars a million tokens, by kind. `input` and `output` are for tokens of no other kind.

    `audio_seconds`: a million seconds of sound, where upstream tells no tokens that cost something. None: without
    tokens such calls are unpriced.
    """

    input: int
    output: int
    cached: int
    cache_write: int
    reasoning: int
    audio_input: int
    audio_output: int
    image_input: int
    image_output: int
    audio_seconds: int | None = None


class Tier(msgspec.Struct, frozen=True, gc=False):
    """The rates of a whole call whose input has more than `above_input_tokens` tokens."""

    above_input_tokens: int
    rates: Rates


class Price(msgspec.Struct, frozen=True, gc=False):
    """What a model costs, when that was looked up, and where."""

    rates: Rates
    looked_up: date
    source: str | None = None
    tiers: tuple[Tier, ...] = ()
    """The lowest first."""

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates of a call with so many tokens of input, cached ones included."""
        for tier in reversed(self.tiers):
            if input_tokens > tier.above_input_tokens:
                return tier.rates
        return self.rates


class PricesError(Exception):
    """The file cannot be used. `problems` holds all that is wrong with it, each as `file:line: entry: reason`."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class PriceList:
    """Prices by the names that upstream knows. In a name, `*` is any run of characters.

    Of several entries that fit, the most specific one counts: an exact name, then the pattern with most characters
    besides its stars, then the one that comes first. An entry of None says that its models are unpriced.
    """

    def __init__(self, entries: Mapping[str, Price | None]) -> None:
        self._exact = {name: price for name, price in entries.items() if "*" not in name}
        patterns = ((name, price) for name, price in entries.items() if "*" in name)
        self._patterns = sorted(patterns, key=lambda entry: entry[0].count("*") - len(entry[0]))
        self._remembered: dict[str, Price | None] = {}

    def __len__(self) -> int:
        return len(self._exact) + len(self._patterns)

    def __repr__(self) -> str:
        return f"PriceList({len(self)} entries)"

    @property
    def priced_names(self) -> tuple[str, ...]:
        """The entries that have a price; the others say that there is none."""
        entries = (*self._exact.items(), *self._patterns)
        return tuple(name for name, price in entries if price is not None)

    @property
    def priced(self) -> int:
        """How many they are."""
        return len(self.priced_names)

    def price_of(self, model: str) -> Price | None:
        """The price of `model`, None if it is unpriced. Asked on every call, so answers are remembered."""
        try:
            return self._remembered[model]
        except KeyError:
            price = self._look_up(model)
        if len(model) <= _LONGEST_REMEMBERED:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[model] = price
        return price

    def _look_up(self, model: str) -> Price | None:
        if model in self._exact:
            return self._exact[model]
        return next((price for pattern, price in self._patterns if matches(pattern, model)), None)


def load_prices(path: Path | None) -> PriceList:
    """The prices of the file `path`; None: of `config/prices.yaml` if it is there, else none at all.

    Raises PricesError.
    """
    if path is None:
        if not DEFAULT_FILE.is_file():
            return PriceList({})
        path = DEFAULT_FILE
    return parse_prices(_text_of(path), str(path))


def parse_prices(text: str, where: str) -> PriceList:
    """The prices that `text` lists, which stands in a file called `where`. Raises PricesError."""
    reader = YamlReader(Origin(where))
    try:
        values = reader.read(text)
    except BadTextError as error:
        raise PricesError([str(error.problem)]) from None
    reading = _Reading(where, reader.layer)
    entries = reading.entries(values)
    if reading.problems:
        raise PricesError(problem for _, problem in sorted(reading.problems, key=lambda found: found[0]))
    return PriceList(entries)


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PricesError([f"{path}: is not UTF-8 text; save it as UTF-8"]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", "not a path")
        raise PricesError([f"{path}: cannot be read: {reason}; name a file of prices as prices.file"]) from None


class _Reading:
    """Turns what the file says into prices, and gathers what is wrong with it, with the line of each."""

    def __init__(self, where: str, layer: Layer) -> None:
        self._where = where
        self._layer = layer
        self.problems: list[tuple[int, str]] = []
        for problem in layer.problems:
            line = 0 if problem.origin is None else problem.origin.line or 0
            self._add(line, problem.path, f"{problem.reason}; {problem.cure}")

    def entries(self, values: Any) -> dict[str, Price | None]:
        top = self._table((), values, ("unit", "models"))
        if top is None:
            return {}
        if top.get("unit") != UNIT:
            self._refuse(("unit",), f"must be {UNIT}, which all amounts are")
        models = top.get("models")
        if models is not None and not isinstance(models, dict):
            self._refuse(("models",), "is not a table of models")
            return {}
        return {name: self._entry(("models", name), value) for name, value in (models or {}).items()}

    def _entry(self, at: Place, value: Any) -> Price | None:
        if not str(at[-1]).isprintable():
            self._refuse(at, "is no name of a model: it has a line end or another control character")
        if value is None:
            return None
        members = self._table(at, value, ("looked_up", "source", *_KINDS, "tiers"))
        if members is None:
            return None
        rates = self._rates(at, members)
        looked_up = self._date((*at, "looked_up"), members.get("looked_up"))
        tiers = self._tiers((*at, "tiers"), members)
        source = members.get("source")
        if source is not None and not isinstance(source, str):
            self._refuse((*at, "source"), "is not text; write where the price was found, as a URL")
        if rates is None or looked_up is None:
            return None
        return Price(rates, looked_up, source, tiers)

    def _rates(self, at: Place, members: Mapping[str, Any]) -> Rates | None:
        for kind in _REQUIRED:
            if kind not in members:
                self._refuse((*at, kind), "is missing; write its price, or 0 if such tokens cost nothing")
        found = {kind: self._amount((*at, kind), members[kind]) for kind in _KINDS if kind in members}
        amounts = {kind: amount for kind, amount in found.items() if amount is not None}
        if not all(kind in amounts for kind in _REQUIRED):
            return None
        for kind, other in _DEFAULTS.items():
            amounts.setdefault(kind, amounts[other])
        return Rates(**amounts)

    def _tiers(self, at: Place, members: Mapping[str, Any]) -> tuple[Tier, ...]:
        values = members.get("tiers") or []
        if not isinstance(values, list):
            self._refuse(at, "is not a list of tiers")
            return ()
        kinds = {kind for kind in _KINDS if kind in members}
        found = [self._tier((*at, index), value, kinds) for index, value in enumerate(values)]
        tiers = tuple(tier for tier in found if tier is not None)
        bounds = [tier.above_input_tokens for tier in tiers]
        if bounds != sorted(set(bounds)):
            self._refuse(at, "is not in order; write the tier with the least above_input_tokens first, each once")
        return tiers

    def _tier(self, at: Place, value: Any, kinds: set[str]) -> Tier | None:
        members = self._table(at, value, ("above_input_tokens", *_KINDS))
        if members is None:
            return None
        above = self._number((*at, "above_input_tokens"), members.get("above_input_tokens"), 1, _MAX_TOKENS)
        others = kinds ^ (members.keys() & set(_KINDS))
        for kind in sorted(others):
            self._refuse((*at, kind), "is priced here or above, and not in both; a tier has its model's kinds")
        rates = None if others else self._rates(at, members)
        return None if above is None or rates is None else Tier(above, rates)

    def _table(self, at: Place, value: Any, names: tuple[str, ...]) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            self._refuse(at, f"is not a table of {', '.join(names)}")
            return None
        for name in sorted(value.keys() - set(names)):
            self._refuse((*at, name), f"unknown key; the keys are {', '.join(names)}")
        return value

    def _amount(self, at: Place, value: Any) -> int | None:
        amount = self._number(at, value, 0, MAX_MICROUSD, "micro-dollars; $1.75 a million tokens is 1_750_000")
        if amount is not None and 0 < amount < MIN_MICROUSD:
            self._refuse(at, f"is less than {MIN_MICROUSD} micro-dollars; $1.75 a million tokens is 1_750_000")
            return None
        return amount

    def _number(self, at: Place, value: Any, least: int, most: int, of: str = "tokens") -> int | None:
        if not isinstance(value, str) or len(value) > 30 or _WHOLE_NUMBER.fullmatch(value) is None:
            self._refuse(at, f"is not a whole number of {of}")
            return None
        number = int(value)
        if not least <= number <= most:
            self._refuse(at, f"is not between {least} and {most}")
            return None
        return number

    def _date(self, at: Place, value: Any) -> date | None:
        try:
            if isinstance(value, str) and _DATE.fullmatch(value):
                return date.fromisoformat(value)
        except ValueError:
            pass
        self._refuse(at, "is not the day on which the price was looked up, such as 2026-11-22")
        return None

    def _refuse(self, at: Place, reason: str) -> None:
        origin = self._layer.origin_of(at) or self._layer.origins.get(())
        self._add(0 if origin is None else origin.line or 0, at, reason)

    def _add(self, line: int, at: Place, reason: str) -> None:
        spelled = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at[2:])
        name = f"{at[1]}{spelled}" if len(at) > 1 else "".join(map(str, at))
        where = f"{self._where}:{line}" if line else self._where
        self.problems.append((line, ": ".join(part for part in (where, name, reason) if part)))
