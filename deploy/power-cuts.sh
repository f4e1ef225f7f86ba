#!/bin/sh
# Cuts the power of a virtual machine with a worker in it, at random moments, then audits. Root on Debian.
#
#   sh deploy/power-cuts.sh --cuts 20 --seed 1 [--broker docker|private|private:/path/to/root]
set -eu
# shellcheck source=deploy/environment.sh
. "$(dirname "$0")/environment.sh"
need_python tests
need_broker "${TSM_WORKER_TEST_BROKER:-auto}"
sh deploy/machine.sh
PYTHONPATH=.:tests exec .venv/bin/python tests/power_cuts.py "$@"
