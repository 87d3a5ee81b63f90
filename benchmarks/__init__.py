"""Measure titan_lab against the tools an analyst would otherwise reach for, one script per promise."""
