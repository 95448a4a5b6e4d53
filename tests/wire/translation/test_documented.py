"""The manual lists every field that a translation refuses or leaves out."""

from pathlib import Path

from holdfast.wire.translation import anthropic_fields, chat_fields, responses_fields

PAGE = Path(__file__).parents[3] / "docs" / "fallbacks.md"
TABLES = {
    "from Chat Completions": (chat_fields.TO_RESPONSES, chat_fields.TO_ANTHROPIC),
    "from Responses": (responses_fields.TO_CHAT, responses_fields.TO_ANTHROPIC),
    "from Anthropic": (anthropic_fields.TO_CHAT, anthropic_fields.TO_RESPONSES),
}


def test_every_field_that_is_refused_or_left_out_is_in_the_manual() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(("| refused", "| left out"))]
    missing = []
    for origin, tables in TABLES.items():
        family = "from Anthropic" if origin == "from Anthropic" else "from OpenAI"
        refused = "".join(row for row in rows if row.startswith(f"| refused, {origin}"))
        left_out = "".join(row for row in rows if row.startswith(f"| left out, {family}"))
        for name, rule in [rule for table in tables for rule in table.items()]:
            row = {"refused": refused, "left out": left_out}.get(rule.kind)
            if row is not None and f"`{name}`" not in row:
                missing.append((origin, rule.kind, name))
    assert missing == []
