"""Money in integer nano-dollars: exact sums, no floats between the price list and the ledger."""

from decimal import ROUND_CEILING, Decimal, InvalidOperation

NANO = 1_000_000_000

Nano = int
"""An amount of money in nano-dollars (10**-9 USD)."""


def from_usd(amount: str | int | float | Decimal) -> Nano:
    """USD as written by a person (`0.5`, `"0.0000015"`) in nano-dollars, rounded up.

    Raises ValueError for what is not a finite amount >= 0.
    """
    try:
        usd = Decimal(str(amount))
    except InvalidOperation:
        raise ValueError(f"{amount!r} is not an amount of USD") from None
    if not usd.is_finite() or usd < 0:
        raise ValueError(f"{amount!r} is not an amount of USD >= 0")
    return int((usd * NANO).to_integral_value(ROUND_CEILING))


def to_usd(amount: Nano) -> str:
    """Nano-dollars as USD without exponent or trailing zeros, at least two decimals: `1.50`, `0.000375`."""
    sign = "-" if amount < 0 else ""
    whole, rest = divmod(abs(amount), NANO)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


def price_of(tokens: int, nano_per_million: int) -> Nano:
    """The price of `tokens` at a rate in nano-dollars per million tokens, rounded up to the next nano-dollar."""
    return -(-tokens * nano_per_million // 1_000_000)
