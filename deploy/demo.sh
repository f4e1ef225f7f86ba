#!/bin/sh
# Runs the main job on this machine: a private RabbitMQ, three workers, a stand-in dsmc. Arguments go to the demo.
set -eu
# shellcheck source=deploy/environment.sh
. "$(dirname "$0")/environment.sh"
need_python demo
need_broker auto
exec .venv/bin/python -m worker demo "$@"
