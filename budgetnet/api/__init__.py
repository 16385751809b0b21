"""Python API: functions for the commands, and objects for notebooks."""
