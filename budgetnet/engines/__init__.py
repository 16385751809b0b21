"""Engines: where training runs are executed: in this process, or in worker processes on this machine."""
