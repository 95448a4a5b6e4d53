"""How many tokens a call will probably use: what rates take before the answer tells. Limits never rest on it; they take the bound."""

_MOST_MODELS = 1024
_MAX_NAME = 512
_WEIGHT = 8
"""The latest call counts for one eighth of what is expected of the next."""
_SCALE = 1 << 16
_FIRST = _SCALE // 4, 256 * _SCALE
"""Of a model that has not answered yet: four bytes per token, and an answer of 256."""


class Expectations:
    """What each model's recent calls used: input tokens per byte of their bound (a quarter, before the first), output tokens."""

    def __init__(self) -> None:
        self._models: dict[str, tuple[int, int]] = {}

    def expect(self, model: str, input_bound: int, max_output: int | None) -> tuple[int, int]:
        """Input and output tokens, at most their bounds. max_output: None where nothing bounds it."""
        share, output = self._models.get(model, _FIRST)
        expected = -(-output // _SCALE)
        return min(input_bound, -(-input_bound * share // _SCALE)), expected if max_output is None else min(expected, max_output)

    def learn(self, model: str, input_bound: int, used_input: int, used_output: int) -> None:
        """What a call used after all."""
        if len(model) > _MAX_NAME:
            return
        share, output = self._models.pop(model, _FIRST)
        if input_bound:
            share += (used_input * _SCALE // input_bound - share) // _WEIGHT
        self._models[model] = share, output + (used_output * _SCALE - output) // _WEIGHT
        if len(self._models) > _MOST_MODELS:
            del self._models[next(iter(self._models))]
