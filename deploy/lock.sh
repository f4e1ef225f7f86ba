#!/bin/sh
# Renews deploy/requirements.lock from pyproject.toml; needs uv. Run it after a change of the dependencies.
#
# One file pins everything, and names no host. Its first part is what the worker and its demo need, with the
# build backend; the second, below the line that environment.sh looks for, is what the tests need on top.
set -eu
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
compile() {
    printf '%s\n' hatchling editables | uv pip compile --quiet --universal --python-version 3.11 \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@" pyproject.toml -
}
compile --generate-hashes --extra test >"$scratch/all"
compile --constraint "$scratch/all" >"$scratch/runtime"
cut -d= -f1 "$scratch/runtime" >"$scratch/names"

# An entry is the line that names it and the indented ones below.
part() {
    awk -v wanted="$1" '
        FNR == NR { runtime[$1]; next }
        /^[a-z]/ { split($1, name, "="); keep = ((name[1] in runtime) == wanted) }
        keep
    ' "$scratch/names" "$scratch/all"
}
{
    echo "# Made by: sh deploy/lock.sh"
    part 1
    echo "# The tests need on top:"
    part 0
} >"$scratch/lock"
if grep -n :// "$scratch/lock" >&2; then
    echo "deploy/lock.sh: the lock would name a host" >&2
    exit 1
fi
mv "$scratch/lock" deploy/requirements.lock
