#!/bin/sh
# Runs the tests against a real RabbitMQ. Arguments go to pytest.
#
#   sh deploy/test.sh          quick: on the RabbitMQ that this machine has or can easily get
#   sh deploy/test.sh --all    root on Debian or Ubuntu: brings every real part and runs all tests on the installed
#                              RabbitMQ, and those that a broker's version could change on RabbitMQ 4.0, too, in a
#                              container by testcontainers. A test that finds a part missing fails instead of being
#                              skipped, and so does the whole if it leaves a branch of worker/volumes untaken (not with
#                              arguments). Tests wait more than they work, and so two runs go beside each other.
#
# What takes long to make is kept in ${TSM_WORKER_CACHE:-/var/cache/tsm-worker}.
set -eu
# shellcheck source=deploy/environment.sh
. "$(dirname "$0")/environment.sh"

if [ "${1:-}" != --all ]; then
    need_python tests
    need_broker "${TSM_WORKER_TEST_BROKER:-auto}"
    exec .venv/bin/python -m pytest -m "not slow and not long" "$@"
fi
shift

cache=${TSM_WORKER_CACHE:-/var/cache/tsm-worker}
image=rabbitmq:4-management
scratch=$(mktemp -d)
dockerd=

# One command may need several packages, and one package bring several commands; each line is "command package".
real_parts='rabbitmq-server rabbitmq-server
sfdisk fdisk
sgdisk gdisk
mkfs.vfat dosfstools
mkfs.ntfs ntfs-3g
mkfs.xfs xfsprogs
mkfs.btrfs btrfs-progs
mkfs.exfat exfatprogs
mkfs.ext4 e2fsprogs
amqp-publish amqp-tools
debootstrap debootstrap
flock util-linux
ip iproute2
systemd-analyze systemd
dockerd docker.io
iptables iptables'

clean_up() {
    for run in "$scratch"/*.pid; do
        [ ! -e "$run" ] || kill "$(cat "$run")" 2>/dev/null || :
    done
    [ -z "$dockerd" ] || stop_docker
    rm -rf "$scratch"
}

bring_real_parts() {
    missing=$(printf '%s\n' "$real_parts" | while read -r command package; do
        command -v "$command" >/dev/null || printf '%s ' "$package"
    done)
    # The archive's keys are no command, and Ubuntu has them in a package of its own.
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
    # shellcheck disable=SC2086 # names of packages, one word each
    [ -z "$missing" ] || need_packages $missing
}

# A Debian 13 with RabbitMQ 4.0 in a folder: the image is made of it, and tests may run it by chroot.
make_rabbitmq_4() {
    exec 7>"$cache/lock"
    flock 7
    if [ ! -d "$cache/trixie" ]; then
        say "making a Debian 13 with RabbitMQ 4.0 in $cache/trixie (about a minute) …"
        rm -rf --one-file-system "$cache/trixie.new"
        mirror=$(debian_mirror)
        script=/usr/share/debootstrap/scripts/trixie
        [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
        # What it mounts is seen by it alone, and cannot be left behind.
        unshare --mount -- debootstrap --variant=minbase --include=rabbitmq-server,python3 \
            --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
            trixie "$cache/trixie.new" "$mirror" "$script" </dev/null >"$scratch/debootstrap" 2>&1 || {
            tail -n 20 "$scratch/debootstrap" >&2
            die "debootstrap could not make $cache/trixie"
        }
        mkdir -p "$cache/trixie.new/etc/rabbitmq/conf.d"
        # As in the official image: a container's port is published, so its clients are not on its loopback.
        echo 'loopback_users.guest = false' >"$cache/trixie.new/etc/rabbitmq/conf.d/10-defaults.conf"
        echo '[rabbitmq_management].' >"$cache/trixie.new/etc/rabbitmq/enabled_plugins"
        rm -rf "$cache"/trixie.new/var/cache/apt/archives/*.deb
        mv "$cache/trixie.new" "$cache/trixie"
    fi
    exec 7>&-
}

# The daemon that answers, else one of our own beside whatever is on the machine: own socket, own directories, no
# change to the firewall. Clones share it: each holds the lock `users` as a reader, and the last one stops it. Who
# starts or stops it holds the lock `turn`.
bring_docker() {
    if ! docker_answers; then
        dockerd=/run/tsm-worker-docker
        exec 5>"$dockerd.users" 6>"$dockerd.turn"
        flock 6
        mkdir -p "$dockerd"
        export DOCKER_HOST="unix://$dockerd/docker.sock"
        export TESTCONTAINERS_CONNECTION_MODE=docker_host # it guesses wrong on a machine made from an image
        docker_answers || start_docker
        bring_image
        flock --shared 5
        flock --unlock 6
    else
        bring_image
    fi
}

start_docker() {
    say "starting a Docker daemon of our own …"
    [ -e /sys/class/net/docker0 ] || : >"$dockerd/made-docker0"
    setsid dockerd --host "$DOCKER_HOST" --data-root "$cache/docker" --exec-root "$dockerd/exec" \
        --pidfile "$dockerd/pid" --iptables=false --ip-forward=false --ip-masq=false \
        </dev/null >"$dockerd/log" 2>&1 5>&- 6>&- &
    tries=0
    until docker_answers; do
        tries=$((tries + 1))
        if [ "$tries" -gt 60 ]; then
            tail -n 20 "$dockerd/log" >&2
            die "dockerd did not start"
        fi
        sleep 1
    done
    docker container prune --force >/dev/null
}

stop_docker() {
    flock 6
    flock --unlock 5
    flock --exclusive --nonblock 5 || return 0 # another clone still uses it
    if pid=$(cat "$dockerd/pid" 2>/dev/null); then
        kill "$pid" 2>/dev/null || :
        tries=0
        # Not kill -0: where init does not reap, its zombie would answer.
        while [ -e "$dockerd/pid" ] && [ "$tries" -lt 300 ]; do
            tries=$((tries + 1))
            sleep 0.1
        done
    fi
    [ ! -e "$dockerd/made-docker0" ] || ip link delete docker0 2>/dev/null || :
    rm -rf --one-file-system "$dockerd"
}

bring_image() {
    if [ -n "$(docker image ls --quiet "$image")" ]; then return; fi
    if [ -z "$dockerd" ] && timeout 300 docker pull --quiet "$image" >/dev/null 2>&1; then return; fi
    say "making the image $image …"
    tar --create --file - --directory "$cache/trixie" --one-file-system --exclude='./tmp/*' . |
        docker import --change 'CMD ["/usr/lib/rabbitmq/bin/rabbitmq-server"]' --change 'EXPOSE 5672 15672' \
            --change 'ENV LANG=C.UTF-8 HOME=/var/lib/rabbitmq PATH=/usr/sbin:/usr/bin:/sbin:/bin' \
            - "$image" >/dev/null
}

# `run_tests NAME BROKER ARGUMENT...` shows pytest's output as it comes and keeps its closing line, which is shown again
# at the end.
run_tests() {
    run=$scratch/$1
    export TSM_WORKER_TEST_BROKER="$2" COVERAGE_FILE="$run.coverage"
    say "running the tests: $1"
    shift 2
    {
        status=0
        sh -c 'echo $$ >"$0"; exec "$@"' "$run.pid" .venv/bin/python -m pytest "$@" || status=$?
        rm "$run.pid"
        echo "$status" >"$run.status"
    } </dev/null 2>&1 5>&- 6>&- | tee -i "$run.output"
    {
        grep '^RabbitMQ ' "$run.output" | tail -n 1
        tail -n 1 "$run.output"
    } >"$run.closing"
    status=$(cat "$run.status")
    [ "$status" = 5 ] && [ -n "$chosen" ] || return "$status" # 5: none of those that were asked for is in this run
}

is_root_on_debian || die "--all makes disks and containers: it needs root on Debian or Ubuntu"
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
bring_real_parts
need_python tests
mkdir -p "$cache"
make_rabbitmq_4
bring_docker
for part in machine wine; do # the slow tests' virtual machine and Windows, if this tree has them
    [ ! -e "deploy/$part.sh" ] || sh "deploy/$part.sh" >/dev/null
done

export TSM_WORKER_TEST_ALL=1
chosen=$*
failed=0
{
    code=0
    run_tests docker docker -m "not slow" --ignore tests/unit "$@" || code=1
    run_tests slow private -m slow --cov=worker.volumes --cov-report= "$@" || code=1
    exit "$code"
} >"$scratch/beside" 2>&1 &
beside=$!
run_tests private private -m "not slow" --cov=worker.volumes --cov-report= "$@" || failed=1
wait "$beside" || failed=1
cat "$scratch/beside"
if [ -z "$chosen" ]; then # only all tests together take every branch
    export COVERAGE_FILE="$scratch/coverage"
    .venv/bin/coverage combine --quiet "$scratch/private.coverage" "$scratch/slow.coverage"
    .venv/bin/coverage report --show-missing --skip-covered --fail-under=100 || failed=1
fi
echo
cat "$scratch"/*.closing
[ "$failed" = 0 ]
