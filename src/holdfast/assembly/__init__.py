"""The composition root: the only room that knows everything. One file per thing that can be started."""
