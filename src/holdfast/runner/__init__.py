"""The process side of `holdfast run`: the agent's environment, its processes from start to end, and what is said about them afterwards."""
