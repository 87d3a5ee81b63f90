"""Make ``python -m titan_lab`` the `titan` command."""

from titan_lab.cli import main

main()
