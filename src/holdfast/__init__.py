"""Holdfast keeps AI agents safe in production: it guards their calls, records their decisions and limits what they spend."""

__version__ = "0.1.0"
