"""Scheduled notebooks: what a job declares, how it runs, and what is kept of it."""
