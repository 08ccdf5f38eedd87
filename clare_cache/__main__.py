"""`python -m clare_cache`."""

from clare_cache.cli.app import main

main()
