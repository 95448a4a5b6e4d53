"""A model provider that speaks OpenAI and Anthropic, costs nothing, and fails on demand: the model's name selects how.

The names, the billing rules and the script format are in docs/simulated-provider.md.
"""

from holdfast.testing.simulated_provider.provider import SimulatedProvider
from holdfast.testing.simulated_provider.running import Address, running, running_in_thread
from holdfast.testing.simulated_provider.script import Script, ScriptedAnswer, ScriptedCall, Scripts

__all__ = ["Address", "Script", "ScriptedAnswer", "ScriptedCall", "Scripts", "SimulatedProvider", "running", "running_in_thread"]
