"""Why a history is as it is: what changed, which event did it, since when, and what was known."""
