"""What becomes of every field of an Anthropic Messages request when a target speaks one of OpenAI's formats."""

from holdfast.wire.translation.fields import TRANSLATED, Rule, Table, left_out, refused

_CACHE = left_out("it only makes the request cheaper at Anthropic")
_PRICE = left_out("a tier of Anthropic's: it changes the price and the speed, not the answer")
_HOSTED = "it would be run by Anthropic"
_KEPT = "it lies at Anthropic"

_BOTH: dict[str, Rule] = {
    "model": TRANSLATED,
    "messages": TRANSLATED,
    "system": TRANSLATED,
    "max_tokens": TRANSLATED,
    "tools": TRANSLATED,
    "tool_choice": TRANSLATED,
    "output_config": TRANSLATED,
    "thinking": TRANSLATED,
    "temperature": TRANSLATED,
    "top_p": TRANSLATED,
    "metadata": TRANSLATED,
    "stream": TRANSLATED,
    "cache_control": _CACHE,
    "service_tier": _PRICE,
    "speed": _PRICE,
    "diagnostics": left_out("it asks for facts about Anthropic's cache"),
    "top_k": refused("OpenAI's models have no such setting"),
    "container": refused(_KEPT),
    "mcp_servers": refused(_HOSTED, b"[]"),
    "context_management": refused("the history would be edited by Anthropic", b"{}", b'{"edits":[]}'),
    "inference_geo": refused("no other target is known to answer from there", b'"global"'),
    "thread": refused(_KEPT),
    "fallbacks": refused("the route of the gateway names the fallbacks", b"[]"),
    "compaction": refused(_HOSTED),
    "output_format": refused("it gave way to output_config.format"),
}
TO_CHAT: Table = _BOTH | {"stop_sequences": TRANSLATED}
TO_RESPONSES: Table = _BOTH | {"stop_sequences": refused("Responses knows no stop sequences", b"[]")}

IN_TOOLS: Table = {
    "name": TRANSLATED,
    "description": TRANSLATED,
    "input_schema": TRANSLATED,
    "strict": TRANSLATED,
    "type": TRANSLATED,
    "cache_control": _CACHE,
    "eager_input_streaming": left_out("it says how the arguments are cut into pieces, not what they are"),
    "defer_loading": refused("the tools would be searched by Anthropic", b"false"),
    "allowed_callers": refused("the tool would be called by code that Anthropic runs", b'["direct"]', b"[]"),
    "input_examples": refused("OpenAI's tools have no examples; put them into the description", b"[]"),
}
