"""What becomes of every field of a Chat Completions request when a target speaks another format."""

from holdfast.wire.translation.fields import TRANSLATED, Rule, Table, left_out, refused

_PRICE = left_out("a tier of OpenAI's: it changes the price and the speed, not the answer")
_CACHE = left_out("it only makes the request cheaper at OpenAI")
_TAGS = left_out("tags for OpenAI's own dashboard: no model reads them")
_NO_AUDIO = "audio is not translated"

_BOTH: dict[str, Rule] = {
    "model": TRANSLATED,
    "messages": TRANSLATED,
    "tools": TRANSLATED,
    "tool_choice": TRANSLATED,
    "parallel_tool_calls": TRANSLATED,
    "response_format": TRANSLATED,
    "reasoning_effort": TRANSLATED,
    "max_tokens": TRANSLATED,
    "max_completion_tokens": TRANSLATED,
    "temperature": TRANSLATED,
    "top_p": TRANSLATED,
    "stream": TRANSLATED,
    "stream_options": TRANSLATED,
    "user": TRANSLATED,
    "safety_identifier": TRANSLATED,
    "store": left_out("the answer of another provider could not be fetched from OpenAI's store"),
    "seed": left_out("it repeats answers of the very same model only"),
    "prediction": left_out("it only makes the answer quicker"),
    "n": refused("there is one answer to a request", b"1"),
    "logprobs": refused("log-probabilities are not translated", b"false"),
    "top_logprobs": refused("log-probabilities are not translated", b"0"),
    "logit_bias": refused("it names tokens of OpenAI's models", b"{}"),
    "frequency_penalty": refused("there is no such penalty", b"0", b"0.0"),
    "presence_penalty": refused("there is no such penalty", b"0", b"0.0"),
    "modalities": refused(_NO_AUDIO, b'["text"]'),
    "audio": refused(_NO_AUDIO),
    "functions": refused("it gave way to tools", b"[]"),
    "function_call": refused("it gave way to tool_choice"),
    "web_search_options": refused("the search would be run by OpenAI"),
}

TO_RESPONSES: Table = _BOTH | {
    "stop": refused("Responses knows no stop sequences", b"[]", b'""'),
    "verbosity": TRANSLATED,
    "metadata": TRANSLATED,
    "service_tier": TRANSLATED,
    "prompt_cache_key": TRANSLATED,
    "prompt_cache_retention": TRANSLATED,
    "prompt_cache_options": TRANSLATED,
    "moderation": TRANSLATED,
}
TO_ANTHROPIC: Table = _BOTH | {
    "stop": TRANSLATED,
    "verbosity": refused("there is no such setting", b'"medium"'),
    "metadata": _TAGS,
    "service_tier": _PRICE,
    "prompt_cache_key": _CACHE,
    "prompt_cache_retention": _CACHE,
    "prompt_cache_options": _CACHE,
    "moderation": refused("the moderation would be run by OpenAI"),
}

IN_MESSAGES: Table = {
    "role": TRANSLATED,
    "content": TRANSLATED,
    "refusal": TRANSLATED,
    "tool_calls": TRANSLATED,
    "tool_call_id": TRANSLATED,
    "name": TRANSLATED,
    "function_call": refused("it gave way to tool_calls"),
    "audio": refused(_NO_AUDIO),
    "annotations": left_out("sources that were shown beside an answer: no model reads them"),
    "reasoning_content": left_out("thoughts of one model are no valid history of another"),
    "reasoning": left_out("thoughts of one model are no valid history of another"),
    "reasoning_details": left_out("thoughts of one model are no valid history of another"),
}
