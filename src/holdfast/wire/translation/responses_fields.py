"""What becomes of every field of a Responses request when a target speaks another format."""

from holdfast.wire.translation.fields import TRANSLATED, Rule, Table, left_out, refused

_PRICE = left_out("a tier of OpenAI's: it changes the price and the speed, not the answer")
_CACHE = left_out("it only makes the request cheaper at OpenAI")
_KEPT = "it lies at OpenAI"

_BOTH: dict[str, Rule] = {
    "model": TRANSLATED,
    "input": TRANSLATED,
    "instructions": TRANSLATED,
    "tools": TRANSLATED,
    "tool_choice": TRANSLATED,
    "parallel_tool_calls": TRANSLATED,
    "text": TRANSLATED,
    "reasoning": TRANSLATED,
    "max_output_tokens": TRANSLATED,
    "temperature": TRANSLATED,
    "top_p": TRANSLATED,
    "include": TRANSLATED,
    "stream": TRANSLATED,
    "stream_options": TRANSLATED,
    "user": TRANSLATED,
    "safety_identifier": TRANSLATED,
    "store": left_out("the answer of another provider could not be fetched from OpenAI's store"),
    "max_tool_calls": left_out("it bounds the tools that OpenAI runs, which are refused"),
    "image": left_out("it says how OpenAI stores the pictures of a context"),
    "access_programs": left_out("a programme of OpenAI's for its own models"),
    "client_metadata": left_out("tags for OpenAI's own use: no model reads them"),
    "previous_response_id": refused(_KEPT + "; send the history instead"),
    "conversation": refused(_KEPT + "; send the history instead"),
    "prompt": refused(_KEPT),
    "background": refused("the answer would be fetched from OpenAI later", b"false"),
    "background_options": refused("the answer would be fetched from OpenAI later"),
    "context_management": refused("the history would be edited by OpenAI", b"[]"),
    "top_logprobs": refused("log-probabilities are not translated", b"0"),
    "truncation": refused("the history would be cut by OpenAI", b'"disabled"'),
}

TO_CHAT: Table = _BOTH | {
    "metadata": TRANSLATED,
    "service_tier": TRANSLATED,
    "prompt_cache_key": TRANSLATED,
    "prompt_cache_retention": TRANSLATED,
    "prompt_cache_options": TRANSLATED,
    "moderation": TRANSLATED,
}
TO_ANTHROPIC: Table = _BOTH | {
    "metadata": left_out("tags for OpenAI's own dashboard: no model reads them"),
    "service_tier": _PRICE,
    "prompt_cache_key": _CACHE,
    "prompt_cache_retention": _CACHE,
    "prompt_cache_options": _CACHE,
    "moderation": refused("the moderation would be run by OpenAI"),
}

IN_TOOLS: Table = {
    "type": TRANSLATED,
    "name": TRANSLATED,
    "description": TRANSLATED,
    "parameters": TRANSLATED,
    "strict": TRANSLATED,
    "format": TRANSLATED,
    "defer_loading": refused("the tools would be searched by OpenAI", b"false"),
    "allowed_callers": refused("the tool would be called by code that OpenAI runs", b'["direct"]', b"[]"),
    "output_schema": refused("tools there have no schema of what they give back"),
    "async": refused("tools there are called one turn at a time", b"false"),
}
