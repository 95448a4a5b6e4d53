"""Identifiers that sort by time."""


def uuid7(wall_ns: int, random_bits: int) -> str:
    """UUID version 7 (RFC 9562) of an instant; `random_bits` supplies 74 random bits, higher ones are ignored."""
    millis = (wall_ns // 1_000_000) & 0xFFFF_FFFF_FFFF
    high = (millis << 16) | 0x7000 | ((random_bits >> 62) & 0xFFF)
    low = 0x8000_0000_0000_0000 | (random_bits & 0x3FFF_FFFF_FFFF_FFFF)
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def wall_ns_of(identifier: str) -> int:
    """When a UUIDv7 was made, to the millisecond; ValueError for what is not one."""
    return int(identifier.replace("-", "")[:12], 16) * 1_000_000
