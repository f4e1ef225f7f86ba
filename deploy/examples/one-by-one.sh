#!/bin/sh
# Host after host, as their order matters (a replica before its primary, say); the first that fails ends it.
#
#   one-by-one.sh VOLUME HOST...
set -eu
volume=$1
shift
for host in "$@"; do
    # shellcheck disable=SC2086 # TSM_WORKER may be several words
    ${TSM_WORKER:-tsm-worker} submit --volume "$volume" --option compression=yes --timeout 4h --host "$host" --wait
done
