"""How lives go: ways, waits, stays, funnels, cohorts, broken rules, and files for process miners."""
