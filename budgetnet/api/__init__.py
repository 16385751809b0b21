"""The library: what the commands do, as functions and as objects for notebooks."""
