"""Settings of the whole suite."""

from hypothesis import settings

settings.register_profile("suite", deadline=None)  # a time limit per example fails on a busy machine, not on a wrong program
settings.load_profile("suite")
