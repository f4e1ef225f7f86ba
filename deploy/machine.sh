#!/bin/sh
# Makes the virtual machine of the slow tests (tests/machine.py): a small Debian with a device mapper, LVM, multipath
# and what the worker needs at run time. As root on Debian or Ubuntu; a second call finds it made and ends at once.
#
# Kept in ${TSM_WORKER_CACHE:-/var/cache/tsm-worker}/machine/KEY, complete or not at all: `kernel`, `initrd` and
# `root.img`. KEY is the checksum of what it is made from, this file and the pinned packages of the worker, so a
# change of either makes a new one. The project itself is not in it: each start brings the tree as it stands.
set -eu
# shellcheck source=deploy/environment.sh
. "$(dirname "$0")/environment.sh"

cache=${TSM_WORKER_CACHE:-/var/cache/tsm-worker}/machine
suite=bookworm
python_of_suite=3.11
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
guest_packages=python3,lvm2,thin-provisioning-tools,dmsetup,cryptsetup-bin,multipath-tools,kpartx,udev,kmod,fdisk
guest_packages=$guest_packages,e2fsprogs,xfsprogs,iproute2,procps,busybox-static,cpio
# What finds the root; everything else is loaded from there.
first_modules='virtio_pci virtio_blk'

pinned() { sed '/^# The tests need on top:/,$d' deploy/requirements.lock; }

bring_tools() {
    missing=
    command -v qemu-system-x86_64 >/dev/null || missing="$missing qemu-system-x86"
    command -v qemu-img >/dev/null || missing="$missing qemu-utils"
    command -v debootstrap >/dev/null || missing="$missing debootstrap"
    command -v mke2fs >/dev/null || missing="$missing e2fsprogs"
    command -v setpriv >/dev/null || missing="$missing util-linux"
    [ -e "$keyring" ] || missing="$missing debian-archive-keyring"
    # shellcheck disable=SC2086 # names of packages, one word each
    [ -z "$missing" ] || need_packages $missing
}

# In a mount namespace of its own: the root lies in memory, where dpkg's thousand calls of
# fsync cost nothing, and whatever happens leaves nothing mounted.
make_machine() {
    root=$scratch/root
    mount -t tmpfs -o size=3G,mode=755 machine "$scratch"
    made debootstrap --variant=minbase --include="$guest_packages" --keyring="$keyring" \
        "$suite" "$root" "$(debian_mirror)"
    add_kernel
    made chroot "$root" apt-get clean
    rm -rf "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/locale/* "$root"/usr/share/man/*
    add_python_packages
    make_initrd
    # The size is what it may grow to; the file is sparse.
    truncate -s 3G "$new/root.img"
    made mke2fs -q -t ext4 -E lazy_itable_init=1,lazy_journal_init=1 -d "$root" "$new/root.img"
}

# Not installed but unpacked: its installation would make an initrd of everything, slow to make and slow to start.
add_kernel() {
    kernel=$(chroot "$root" apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-\)/\1/p')
    made chroot "$root" sh -c "
        cd /tmp && apt-get -q -o Acquire::Retries=3 download $kernel &&
        dpkg-deb --fsys-tarfile linux-image-*.deb | tar --extract --keep-directory-symlink --directory / &&
        rm linux-image-*.deb"
    version=${kernel#linux-image-}
    made chroot "$root" depmod "$version"
    mv "$root/boot/vmlinuz-$version" "$new/kernel"
}

add_python_packages() {
    pinned >"$scratch/pinned"
    pip_install --no-compile --require-hashes --requirement "$scratch/pinned" --target "$root/opt/tsm-worker" \
        --only-binary=:all: --implementation cp --python-version "$python_of_suite" \
        --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64
    made chroot "$root" python3 -m compileall -q /opt/tsm-worker
}

make_initrd() {
    mkdir -p "$root/tmp/initrd/dev" "$root/tmp/initrd/root"
    cp "$root/bin/busybox" "$root/tmp/initrd/"
    # shellcheck disable=SC2086 # names of modules
    chroot "$root" modprobe -a -S "$version" --show-depends $first_modules | awk '!seen[$2]++ { print $2 }' |
        while read -r module; do
            cp "$root$module" "$root/tmp/initrd/"
            echo "/${module##*/}"
        done >"$root/tmp/initrd/modules"
    grep -q virtio_blk "$root/tmp/initrd/modules" || die "could not make the machine: it has no virtio_blk"
    # vda is the root, vdb what the tests bring with each start.
    cat >"$root/tmp/initrd/init" <<'END'
#!/busybox sh
/busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do /busybox insmod "$module"; done </modules
until [ -b /dev/vda ] && [ -b /dev/vdb ]; do /busybox usleep 20000; done
/busybox mount -t ext4 /dev/vda /root
/busybox mkdir -p /root/tree
/busybox mount -t ext4 -o ro /dev/vdb /root/tree
/busybox mount -o move /dev /root/dev
exec /busybox switch_root /root /tree/init
END
    chmod 755 "$root/tmp/initrd/init"
    chroot "$root" sh -c 'cd /tmp/initrd && find . | cpio --quiet -o -H newc' >"$new/initrd"
    rm -rf "$root/tmp/initrd"
}

# Runs a command whose output matters only if it fails.
made() {
    if ! "$@" </dev/null >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "could not make the machine: $1 failed"
    fi
}

is_root_on_debian || die "the machine is made by root on Debian or Ubuntu"
key=$({ cat deploy/machine.sh && pinned; } | sha256sum | cut -c 1-16)
new=$cache/$key.new
if [ "${1:-}" = --in-namespace ]; then
    scratch=$2
    log=$scratch.log
    make_machine
    exit
fi

bring_tools
mkdir -p "$cache"
exec 5>"$cache.lock"
flock 5
if [ ! -d "$cache/$key" ]; then
    need_python demo
    say "making a virtual machine for the tests in $cache/$key (about a minute and a half) …"
    scratch=$(mktemp -d)
    trap 'rm -rf --one-file-system "$scratch" "$scratch.log" "$new"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    rm -rf "$new"
    mkdir "$new"
    unshare --mount -- sh deploy/machine.sh --in-namespace "$scratch"
    mv "$new" "$cache/$key"
    # Those of other trees may be in use; what nobody has asked for in a week is not.
    find "$cache" -mindepth 1 -maxdepth 1 -type d -mtime +7 -exec rm -rf {} +
fi
touch "$cache/$key"
say "the virtual machine is in $cache/$key"
