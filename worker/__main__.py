"""`python -m worker` is `tsm-worker`."""

from worker.cli import main

main()
