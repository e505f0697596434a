"""This file lets `python -m web` be the command line."""

from web.cli import main

main()
