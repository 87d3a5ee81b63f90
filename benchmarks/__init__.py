"""Measure titan_lab against the tools an analyst would otherwise reach for, one script per promise."""

# name on the command line -> module
BENCHES = {
    "at_status_total": "at_status_total",
    "tally": "tally",
    "grid": "grid",
    "at_scalars": "at_scalars",
    "at_all": "at_all",
    "fold": "fold",
    "cold": "cold",
    "blame": "blame",
    "diff": "diff",
    "reopen": "reopen",
    "pit_join": "pit_join",
    "variants": "variants",
    "funnel": "funnel",
    "branch": "branch",
    "long_order": "long_order",
    "long_order_postgres": "long_order_postgres",
    "append": "append",
    "mirror": "mirror",
    "long_order_saved": "long_order_saved",
    "import": "import_time",
    "job_overhead": "job_overhead",
}
