"""Test doubles that ship with the package: a clock that stands still, a record in memory, a model provider that fails on demand."""

from holdfast.testing.clock import FakeClock
from holdfast.testing.exchange import MemoryResponse, request
from holdfast.testing.recorder import MemoryRecorder
from holdfast.testing.upstream import MemoryUpstream

__all__ = ["FakeClock", "MemoryRecorder", "MemoryResponse", "MemoryUpstream", "request"]
