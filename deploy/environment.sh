# Sourced by demo.sh and test.sh: makes the checkout's .venv and sees to a RabbitMQ. Talks to stderr alone.
# shellcheck shell=sh
#
#   need_python demo|tests    .venv with the pinned packages and this project; quick when nothing has changed
#   need_broker KIND          a RabbitMQ that worker.demo.broker can run
#   need_packages NAME…       Debian or Ubuntu packages; only root can, and none of their services is started

set -eu
checkout=$(cd "$(dirname "$0")/.." && pwd -P)
cd "$checkout"

say() { printf 'tsm-worker: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

is_root_on_debian() { [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null; }

need_packages() {
    say "installing $* …"
    if ! (install_packages "$@"); then
        die "apt-get could not install: $*"
    fi
}

# In a subshell, which the lock and the policy end with. Clones that do this at the same time take turns.
install_packages() {
    exec 9>/run/tsm-worker-apt.lock
    flock 9
    log=$(mktemp)
    policy=/usr/sbin/policy-rc.d
    ours='# put here by tsm-worker while it installs packages'
    # An administrator's own policy is respected. One of ours can only have been left by a kill -9.
    if [ -e "$policy" ] && ! grep -qxF "$ours" "$policy"; then
        trap 'rm -f "$log"' EXIT
    else
        trap 'rm -f "$log" "$policy"' EXIT
        printf '#!/bin/sh\n%s\nexit 101\n' "$ours" >"$policy"
        chmod 755 "$policy"
    fi
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    enabled=$(enabled_units)
    if ! { apt_get update && apt_get install --no-install-recommends "$@"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        exit 1
    fi
    # Nor is any of them to start at the next boot.
    for link in $(enabled_units); do
        case " $enabled " in
            *" $link "*) ;;
            *) rm -f "$link" ;;
        esac
    done
}

apt_get() {
    tries=1
    # Another apt-get update makes this one fail at once; only dpkg's lock is waited for.
    until DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 \
        -o Dpkg::Use-Pty=0 "$@" </dev/null; do
        [ "$tries" -lt 3 ] || return 1
        tries=$((tries + 1))
        sleep 5
    done
}

enabled_units() {
    find /etc/systemd/system -type l -path '*.wants/*.*' 2>/dev/null | sort | tr '\n' ' '
}

# Where this machine's own packages come from; on Ubuntu nothing, and debootstrap knows its default.
debian_mirror() {
    # shellcheck disable=SC2016 # apt-get's own placeholder
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1
}

# python3 itself if it is new enough, else one with a number to its name.
find_python() {
    for python in "${PYTHON:-python3}" python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            return
        fi
    done
    die "needs Python 3.11 or newer; install it, or name it with PYTHON=/path/to/python"
}

need_python() {
    find_python
    if command -v flock >/dev/null; then # two at a time in one checkout take turns
        exec 8<deploy/requirements.lock
        flock 8
    fi
    # A daemon that answers is used through testcontainers, which is the tests'.
    if [ "$1" = demo ] && ! docker_answers; then set=demo; else set=tests; fi
    stamp=$(printf '%s\n' "$checkout" "$("$python" -V)" | cat - pyproject.toml deploy/requirements.lock | cksum)
    if [ "$(cat ".venv/.$set" 2>/dev/null)" != "$stamp" ]; then
        make_venv
        printf '%s\n' "$stamp" >.venv/.demo
        [ "$set" = demo ] || printf '%s\n' "$stamp" >.venv/.tests
    fi
    exec 8<&-
}

make_venv() {
    rm -f .venv/.demo .venv/.tests
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        is_root_on_debian || die "Python's venv is missing; as root: apt-get install $version"
        need_packages "$version"
    fi
    say "installing the pinned Python packages into $checkout/.venv …"
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || ! same_python; then
        "$python" -m venv --clear .venv || die "$python -m venv failed"
    fi
    wanted=.venv/wanted.txt
    if [ "$set" = demo ]; then
        sed '/^# The tests need on top:/,$d' deploy/requirements.lock >"$wanted"
    else
        cp deploy/requirements.lock "$wanted"
    fi
    pip_install --require-hashes --requirement "$wanted"
    pip_install --no-deps --no-build-isolation --editable .
}

same_python() {
    [ "$(.venv/bin/python -c 'import sys; print(sys.prefix, sys.version)' 2>/dev/null)" = \
        "$("$python" -c 'import sys; print(sys.argv[1], sys.version)' "$checkout/.venv")" ]
}

pip_install() {
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1 \
        .venv/bin/python -m pip install -qq "$@" </dev/null >&2 || die "pip could not install (see above): $*"
}

docker_answers() {
    command -v docker >/dev/null && docker version >/dev/null 2>&1
}

# What can be had is decided in one place, the program's own; with Docker this may pull the image.
need_broker() {
    kind=$1
    if problem=$(broker_problem); then return; fi
    if [ "$kind" = auto ] && is_root_on_debian; then
        need_packages rabbitmq-server
        if problem=$(broker_problem); then return; fi
    fi
    die "$problem"
}

broker_problem() {
    .venv/bin/python - "$kind" 2>&1 <<'END'
import sys
from worker.demo.broker import BrokerError, choose
try:
    choose(sys.argv[1])
except BrokerError as error:
    sys.exit(str(error))
END
}
