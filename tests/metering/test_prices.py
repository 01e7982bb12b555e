"""A file of prices says what each model costs; what is wrong with it is told with its line."""

import re
from datetime import date
from pathlib import Path

import pytest

from gateway.metering.prices import (
    _DEFAULTS,
    DEFAULT_FILE,
    Price,
    PriceList,
    PricesError,
    Rates,
    Tier,
    load_prices,
    parse_prices,
)
from tests.support.yardsticks import times_a_count

ROOT = Path(__file__).parents[2]
UNIT = "unit: microusd_per_million_tokens\n"
ENTRY = "{looked_up: 2026-11-22, input: 2_000_000, output: 8000000}"


def listed(models: str) -> PriceList:
    return parse_prices(f"{UNIT}models:\n{models}", "prices.yaml")


def price(amount: int) -> Price:
    return Price(Rates(*[amount] * 9), date(2026, 11, 22))


def refused(text: str) -> list[str]:
    with pytest.raises(PricesError) as refusal:
        parse_prices(text, "prices.yaml")
    assert str(refusal.value) == "\n".join(refusal.value.problems)
    return refusal.value.problems


def test_the_shipped_file_can_be_read_and_prices_nothing_that_was_not_looked_up() -> None:
    prices = load_prices(ROOT / DEFAULT_FILE)
    assert prices.price_of("openai/gpt-5.2") is None
    assert repr(prices) == "PriceList(1 entries)"


def test_the_entry_that_the_shipped_file_shows_is_one_with_every_kind() -> None:
    text = (ROOT / DEFAULT_FILE).read_text("utf-8")
    example = re.search(r"^#   vendor/model:.*?(?=^models:)", text, re.MULTILINE | re.DOTALL)
    assert example is not None
    found = listed(re.sub("^#", "", example[0], flags=re.MULTILINE)).price_of("vendor/model")
    assert found == Price(
        Rates(
            2_000_000,
            8_000_000,
            200_000,
            2_500_000,
            8_000_000,
            40_000_000,
            80_000_000,
            4_000_000,
            40_000_000,
            100_000_000,
        ),
        date(2026, 11, 22),
        "https://vendor.example/pricing",
        (
            Tier(
                200_000,
                Rates(
                    4_000_000,
                    12_000_000,
                    400_000,
                    5_000_000,
                    12_000_000,
                    40_000_000,
                    80_000_000,
                    8_000_000,
                    60_000_000,
                    100_000_000,
                ),
            ),
        ),
    )


def test_kinds_that_are_left_out_cost_what_input_and_output_cost() -> None:
    found = listed(f"  m: {ENTRY}").price_of("m")
    assert found == Price(
        Rates(
            input=2_000_000,
            output=8_000_000,
            cached=2_000_000,
            cache_write=2_000_000,
            reasoning=8_000_000,
            audio_input=2_000_000,
            audio_output=8_000_000,
            image_input=2_000_000,
            image_output=8_000_000,
            audio_seconds=None,
        ),
        date(2026, 11, 22),
    )


def test_zero_is_a_price_and_no_entry_is_none() -> None:
    found = listed("  embed: {looked_up: 2026-11-22, input: 20000, output: 0}").price_of("embed")
    assert found is not None
    assert found.rates.output == 0
    assert listed(f"  m: {ENTRY}").price_of("other") is None


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/gpt-5.2", 6),
        ("openai/gpt-5.2-mini", 5),
        ("openai/gpt-5.3", 4),
        ("openai/gpt-5.3-mini", 4),
        ("openai/o4-mini", 3),
        ("openai/", 2),
        ("other", 1),
        ("", 1),
        ("openai/gpt-5.2-free", None),
    ],
)
def test_the_most_specific_entry_counts(model: str, expected: int | None) -> None:
    entries = {
        "*": price(1),
        "openai/*": price(2),
        "openai/*-mini": price(3),
        "openai/gpt-5.*": price(4),
        "openai/gpt-5.2*": price(5),
        "openai/gpt-5.2": price(6),
        "openai/gpt-5.2-free": None,
    }
    for order in (entries, dict(reversed(entries.items()))):
        prices = PriceList(order)
        assert prices.price_of(model) == (None if expected is None else price(expected))
        assert prices.price_of(model) is prices.price_of(model)


def test_of_equally_specific_entries_the_first_counts() -> None:
    assert PriceList({"a*": price(1), "*b": price(2)}).price_of("ab") == price(1)
    assert PriceList({"*b": price(2), "a*": price(1)}).price_of("ab") == price(2)


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("a*a", ["aa", "aba", "aaa"], ["a", "ab", "baa"]),
        ("a*b*c", ["abc", "axbxc", "abbc"], ["acb", "ab", "bc"]),
        ("a.*", ["a.", "a.b"], ["ab"]),
        ("**", ["", "a"], []),
    ],
)
def test_a_star_is_any_run_of_characters_and_all_else_is_itself(
    pattern: str, fits: list[str], does_not: list[str]
) -> None:
    prices = PriceList({pattern: price(1)})
    assert [prices.price_of(model) for model in fits] == [price(1)] * len(fits)
    assert [prices.price_of(model) for model in does_not] == [None] * len(does_not)


def test_what_is_remembered_of_clients_names_is_bounded() -> None:
    prices = PriceList({"*": price(1)})
    for number in range(10_000):
        assert prices.price_of(f"model-{number}") == price(1)
    assert prices.price_of("x" * 1_000) == price(1)
    assert len(prices._remembered) <= 4096
    assert "x" * 1_000 not in prices._remembered


def test_a_known_model_costs_next_to_nothing() -> None:
    prices = PriceList({f"vendor/model-{number}*": price(number) for number in range(100)})
    prices.price_of("vendor/model-7-mini")
    assert times_a_count(lambda: prices.price_of("vendor/model-7-mini")) < 20


def test_a_tier_counts_from_the_first_token_above_its_bound() -> None:
    tier = "{above_input_tokens: %d, input: %d, output: 8000}"
    tiers = f"[{tier % (100, 2000)}, {tier % (200, 3000)}]"
    found = listed(f"  m: {{looked_up: 2026-11-22, input: 1000, output: 8000, tiers: {tiers}}}").price_of("m")
    assert found is not None
    assert [found.rates_for(tokens).input for tokens in (0, 100, 101, 200, 201)] == [1000, 1000, 2000, 2000, 3000]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{input: 1000, output: 1000}", "m.looked_up: is not the day on which"),
        ("{looked_up: yesterday, input: 1000, output: 1000}", "m.looked_up: is not the day on which"),
        ("{looked_up: 2026-02-30, input: 1000, output: 1000}", "m.looked_up: is not the day on which"),
        ("{looked_up: 2026-11-22, output: 1000}", "m.input: is missing"),
        ("{looked_up: 2026-11-22, input: 1000}", "m.output: is missing"),
        (
            "{looked_up: 2026-11-22, input: 1.75, output: 1000}",
            "m.input: is not a whole number of micro-dollars; $1.75",
        ),
        ("{looked_up: 2026-11-22, input: , output: 1000}", "m.input: is not a whole number"),
        ("{looked_up: 2026-11-22, input: -1, output: 1000}", "m.input: is not a whole number"),
        ("{looked_up: 2026-11-22, input: ten, output: 1000}", "m.input: is not a whole number"),
        ("{looked_up: 2026-11-22, input: 2, output: 1000}", "m.input: is less than 1000 micro-dollars"),
        ("{looked_up: 2026-11-22, input: 1000, output: 1_000_000_000_001}", "m.output: is not between 0 and 10000"),
        (f"{{looked_up: 2026-11-22, input: 1000, output: {'9' * 5000}}}", "m.output: is not a whole number"),
        (
            "{looked_up: 2026-11-22, input: 1000, output: 1000, inptu: 1}",
            "m.inptu: unknown key; the keys are looked_up",
        ),
        ("{looked_up: 2026-11-22, input: 1000, output: 1000, input: 1}", "m.input: is there twice"),
        ("{looked_up: 2026-11-22, input: 1000, output: 1000, source: [a]}", "m.source: is not text"),
        ("{looked_up: 2026-11-22, input: 1000, output: 1000, tiers: 3}", "m.tiers: is not a list of tiers"),
        ("{looked_up: 2026-11-22, input: 1000, output: 1000, tiers: [3]}", "m.tiers[0]: is not a table of above_input"),
        ("free", "m: is not a table of looked_up"),
        ("[1]", "m: is not a table of looked_up"),
    ],
)
def test_a_bad_entry_is_refused_with_file_line_and_reason(entry: str, problem: str) -> None:
    said = refused(f"{UNIT}models:\n  good: {ENTRY}\n  m: {entry}\n")
    assert said[0].startswith(f"prices.yaml:4: {problem}")


@pytest.mark.parametrize(
    ("tiers", "problem"),
    [
        ("[{input: 1000, output: 1000}]", "m.tiers[0].above_input_tokens: is not a whole number of tokens"),
        ("[{above_input_tokens: 0, input: 1000, output: 1000}]", "m.tiers[0].above_input_tokens: is not between 1 and"),
        ("[{above_input_tokens: 9, input: 1000}]", "m.tiers[0].output: is priced here or above, and not in both"),
        ("[{above_input_tokens: 9, input: 1000, output: 1000, cached: 1000}]", "m.tiers[0].cached: is priced here or"),
        ("[{above_input_tokens: 9, input: 1000, output: 1}]", "m.tiers[0].output: is less than 1000 micro-dollars"),
        (
            "[{above_input_tokens: 9, input: 1000, output: 1000}, {above_input_tokens: 9, input: 1000, output: 1000}]",
            "m.tiers: is not in order",
        ),
        (
            "[{above_input_tokens: 9, input: 1000, output: 1000}, {above_input_tokens: 8, input: 1000, output: 1000}]",
            "m.tiers: is not in order",
        ),
    ],
)
def test_a_bad_tier_is_refused(tiers: str, problem: str) -> None:
    entry = f"{{looked_up: 2026-11-22, input: 1000, output: 1000, tiers: {tiers}}}"
    assert refused(f"{UNIT}models:\n  m: {entry}")[0].startswith(f"prices.yaml:3: {problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("models: {}", "prices.yaml:1: unit: must be microusd_per_million_tokens"),
        ("unit: usd", "prices.yaml:1: unit: must be microusd_per_million_tokens"),
        (f"{UNIT}model: {{}}", "prices.yaml:2: model: unknown key; the keys are unit, models"),
        (f"{UNIT}models: [a]", "prices.yaml:2: models: is not a table of models"),
        ("[a]", "prices.yaml:1: is not a table of unit, models"),
        ("", "prices.yaml: is not a table of unit, models"),
        ("a: [", "prices.yaml:1: is not YAML"),
        (f'{UNIT}models: {{"a\\nb": null}}', "prices.yaml:2: a\nb: is no name of a model"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, problem: str) -> None:
    assert refused(text)[0].startswith(problem)


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    said = refused(f"{UNIT}models:\n  b: 1\n  a:\n    looked_up: never\n    input: 1.5\n    output: 2000\nprices: 1\n")
    assert [line.split(": ")[0] for line in said] == [f"prices.yaml:{line}" for line in (3, 5, 6, 8)]


def test_a_file_without_models_prices_nothing() -> None:
    assert len(parse_prices(f"{UNIT}models:\n", "prices.yaml")) == 0
    assert len(parse_prices(UNIT, "prices.yaml")) == 0


def test_without_a_name_the_file_in_config_is_read_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(load_prices(None)) == 0
    DEFAULT_FILE.parent.mkdir()
    DEFAULT_FILE.write_text(f"{UNIT}models:\n  m: {ENTRY}", "utf-8-sig")
    assert load_prices(None).price_of("m") is not None


@pytest.mark.parametrize("name", ["nowhere.yaml", ".", "latin.yaml", "nul\0"])
def test_a_file_that_was_named_must_be_readable(tmp_path: Path, name: str) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"unit: \xe9")
    with pytest.raises(PricesError, match=r"cannot be read|is not UTF-8"):
        load_prices(tmp_path / name)


@pytest.mark.parametrize(("number", "model"), [(0, "openai/gpt-5.2"), (1, "vendor/model")])
def test_the_files_that_the_page_shows_can_be_read(number: int, model: str) -> None:
    examples = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs/prices.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(examples) == 2
    found = parse_prices(examples[number], "example").price_of(model)
    assert found is not None
    assert found.rates.input == 2_000_000
    assert len(found.tiers) == number


def test_the_page_names_every_kind_and_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", (ROOT / "docs/prices.md").read_text("utf-8"), re.MULTILINE)
    said = {kind: rest.removeprefix("as ").strip("`") for kind, rest in rows}
    assert said == {"input": "must be there", "output": "must be there", "audio_seconds": "unpriced"} | _DEFAULTS
