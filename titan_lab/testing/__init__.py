"""The test kit: the slow obvious oracle, random histories, and the suites that every backend must pass."""
