"""Drills: what Holdfast promises, measured on the user's own machine, on processes of the drill's own."""
