#!/bin/sh
# Many requests, a fault every few seconds, then an audit of what became of each. Root, for a small disk to fill.
#
#   sh deploy/soak.sh --requests 500 --seed 1 [--broker docker|private|private:/path/to/root]
set -eu
# shellcheck source=deploy/environment.sh
. "$(dirname "$0")/environment.sh"
need_python tests
need_broker "${TSM_WORKER_TEST_BROKER:-auto}"
PYTHONPATH=.:tests exec .venv/bin/python tests/soak.py "$@"
