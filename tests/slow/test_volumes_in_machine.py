"""Eligibility on all that a device mapper makes, in a Linux that has one; and a whole backup request there."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from brokers import Vhost, wait_until
from guest import RUNS, install, sound, start
from hosts import Requester, request
from lxml import etree
from machine import Machine

pytestmark = pytest.mark.slow

# LVM on two whole disks and, on the third, inside an encrypted partition and in one of type 0x83.
MAKE_VOLUMES = """
set -e
sfdisk --quiet /dev/vdc <<END
label: dos
,64M,83
,64M,83
,64M,8e
,,83
END
udevadm settle

echo secret >/run/key
cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/vdc1 /run/key
cryptsetup open --key-file /run/key /dev/vdc1 vault
mkfs.ext4 -q /dev/vdc4

vgcreate --quiet safe /dev/mapper/vault
lvcreate --yes --quiet -n data -L 8M safe
vgcreate --quiet inner /dev/vdc2
lvcreate --yes --quiet -n data -L 8M inner
mkfs.ext4 -q /dev/inner/data

vgcreate --quiet vg /dev/vdd /dev/vde
lvcreate --yes --quiet -n plain -L 16M vg
mkfs.ext4 -q /dev/vg/plain
mkdir -p /srv/data
mount /dev/vg/plain /srv/data
lvcreate --yes --quiet -n xfs -L 300M vg
mkfs.xfs -q /dev/vg/xfs
lvcreate --yes --quiet -n origin -L 8M vg
mkfs.ext4 -q /dev/vg/origin
lvcreate --yes --quiet -n snap -L 8M --snapshot vg/origin
lvcreate --yes --quiet -n my-tpool -L 8M vg
lvcreate --yes --quiet -n fixed -L 8M --permission r vg
lvcreate --yes --quiet -n raid -L 8M --type raid1 --mirrors 1 vg
lvcreate --yes --quiet -n mirror -L 8M --type mirror --mirrors 1 vg
lvcreate --yes --quiet -n pool -L 32M --type thin-pool vg
lvcreate --yes --quiet -n thin -V 64M --thinpool vg/pool
mkfs.ext4 -q /dev/vg/thin
lvcreate --yes --quiet -n cached -L 8M vg
lvcreate --yes --quiet -n fast -L 8M --type cache-pool vg
lvconvert --yes --quiet --type cache --cachepool vg/fast vg/cached
lvcreate --yes --quiet -n swapped -L 8M vg
mkswap -q /dev/vg/swapped
lvcreate --yes --quiet -n moving -L 8M vg /dev/vdd
# The move stays as it is until somebody looks after it, an hour from now.
pvmove --quiet --background --interval +3600 --config 'global { use_lvmpolld = 0 }' -n moving /dev/vdd /dev/vde

cat >/etc/multipath.conf <<END
defaults {
    find_multipaths no
    user_friendly_names yes
}
blacklist {
    devnode "^vd"
}
END
multipath
udevadm settle
sfdisk --quiet /dev/mapper/mpatha <<END
label: dos
,32M,83
,32M,82
END
# The name that udev gives too, whichever of the two comes first.
udevadm settle
kpartx -a -p -part /dev/mapper/mpatha
udevadm settle
mkfs.ext4 -q /dev/mapper/mpatha-part1
echo 0 2048 linear /dev/vdc4 0 | dmsetup create stranger
udevadm settle
"""

PART_OF_LV = "/dev/mapper/{} is inside a logical volume: {}; name the logical volume itself"

ELIGIBLE = {
    "/dev/vg/xfs": ("lvm", "xfs", "an LVM logical volume, with xfs on it"),
    "/srv/data": ("lvm", "ext4", "an LVM logical volume, with ext4 on it"),
    "/dev/vg/origin": ("lvm", "ext4", "an LVM logical volume, with ext4 on it"),
    "/dev/vg/snap": ("lvm", "ext4", "an LVM logical volume, with ext4 on it"),
    "/dev/vg/thin": ("lvm", "ext4", "an LVM logical volume, with ext4 on it"),
    "/dev/vg/raid": ("lvm", None, "an LVM logical volume, with no file system that blkid knows (raw)"),
    "/dev/vg/mirror": ("lvm", None, "an LVM logical volume, with no file system that blkid knows (raw)"),
    "/dev/vg/cached": ("lvm", None, "an LVM logical volume, with no file system that blkid knows (raw)"),
    "/dev/vg/moving": ("lvm", None, "an LVM logical volume, with no file system that blkid knows (raw)"),
    "/dev/vg/my-tpool": ("lvm", None, "an LVM logical volume, with no file system that blkid knows (raw)"),
    "/dev/vg/fixed": (
        "lvm",
        None,
        "an LVM logical volume, with no file system that blkid knows (raw), read-only",
    ),
    "/dev/inner/data": ("lvm", "ext4", "an LVM logical volume, with ext4 on it"),
    "/dev/safe/data": ("lvm", None, "an LVM logical volume, with no file system that blkid knows (raw)"),
    "/dev/mapper/mpatha-part1": (
        "0x83",
        "ext4",
        "a partition of MBR type 0x83 (Linux), with ext4 on it",
    ),
    "/dev/vdc4": ("0x83", "ext4", "a partition of MBR type 0x83 (Linux), with ext4 on it"),
}

REFUSED = {
    **{
        f"/dev/mapper/{name}": PART_OF_LV.format(name, what)
        for name, what in (
            ("vg-origin-real", "what lies under a volume with snapshots or a cache"),
            ("vg-snap-cow", "the changed blocks of a snapshot"),
            ("vg-pool", "a pool of thin or deduplicated volumes"),
            ("vg-pool-tpool", "a thin pool"),
            ("vg-pool_tdata", "the data of a thin pool"),
            ("vg-pool_tmeta", "the metadata of a thin pool"),
            ("vg-raid_rimage_0", "one image of a raid"),
            ("vg-raid_rimage_1", "one image of a raid"),
            ("vg-raid_rmeta_1", "the metadata of a raid's image"),
            ("vg-mirror_mimage_0", "one image of a mirror"),
            ("vg-mirror_mlog", "the log of a mirror"),
            ("vg-cached_corig", "what lies under a volume with snapshots or a cache"),
            ("vg-fast_cpool_cdata", "the data of a cache"),
            ("vg-fast_cpool_cmeta", "the metadata of a cache"),
            ("vg-pvmove0", "a move between physical volumes"),
        )
    },
    "/dev/vg/swapped": "/dev/mapper/vg-swapped is an LVM logical volume, but holds swap; ",
    "/dev/vdc1": (
        "/dev/vdc1 is a partition of MBR type 0x83 (Linux), but holds an encrypted device (crypto_LUKS); "
        "open it and name the logical volume inside: /dev/mapper/safe-data"
    ),
    "/dev/mapper/vault": (
        "/dev/mapper/vault is an opened encrypted device (dm-crypt); "
        "name a logical volume on it: /dev/mapper/safe-data"
    ),
    "/dev/vdc2": (
        "/dev/vdc2 is a partition of MBR type 0x83 (Linux), but holds an LVM physical volume (LVM2_member); "
        "name a logical volume on it: /dev/mapper/inner-data"
    ),
    "/dev/vdc3": (
        "/dev/vdc3 is a partition of MBR type 0x8e (Linux LVM); "
        "name a logical volume on it: none is active (vgchange -ay)"
    ),
    "/dev/vdc": (
        "/dev/vdc is a whole disk; name a partition inside it: /dev/vdc1, /dev/vdc2, /dev/vdc3, /dev/vdc4"
    ),
    "/dev/vde": "/dev/vde is a whole disk; name a logical volume on it: ",
    "/dev/mapper/mpatha": (
        "/dev/mapper/mpatha is a whole disk, a multipath map; "
        "name a partition inside it: /dev/mapper/mpatha-part1, /dev/mapper/mpatha-part2"
    ),
    "/dev/mapper/mpatha-part2": (
        "/dev/mapper/mpatha-part2 is a partition of MBR type 0x82 (Linux swap / Solaris); it holds nothing"
    ),
    "/dev/sda": "/dev/sda is only one path of the multipath map /dev/mapper/mpatha; name a partition of ",
    "/dev/sdb": "/dev/sdb is only one path of the multipath map /dev/mapper/mpatha; name a partition of ",
    "/dev/mapper/stranger": "/dev/mapper/stranger is a device-mapper device that is no logical volume; ",
}

Verdicts = Mapping[str, Mapping[str, Any]]


def check(machine: Machine, *names: str) -> list[dict[str, Any]]:
    """Return what the real worker's `check` says there of the volumes `names`, or of all."""
    command = " ".join(["python3 -m worker check --json", *(shlex.quote(name) for name in names)])
    verdicts: list[dict[str, Any]] = json.loads(machine.say(command))
    return verdicts


@pytest.fixture(scope="module")
def volumes(machine: Machine) -> Machine:
    """Give the machine with every sort of volume on it."""
    machine.say(MAKE_VOLUMES, 300)
    return machine


@pytest.fixture(scope="module")
def verdicts(volumes: Machine) -> Verdicts:
    """Give the verdicts on all that is named above, by name; no two of these are one device."""
    return {verdict["volume"]: verdict for verdict in check(volumes, *ELIGIBLE, *REFUSED)}


@pytest.mark.parametrize("name", ELIGIBLE)
def test_a_logical_volume_and_a_partition_of_type_0x83_are_eligible_on_whatever_they_lie(
    verdicts: Verdicts, name: str
) -> None:
    found = verdicts[name]
    kind, file_system, reason = ELIGIBLE[name]
    assert found["eligible"], found["reason"]
    assert (found["partition_type"], found["file_system"], found["reason"]) == (kind, file_system, reason)


@pytest.mark.parametrize("name", REFUSED)
def test_what_volumes_are_made_of_is_refused_for_what_it_is(verdicts: Verdicts, name: str) -> None:
    found = verdicts[name]
    assert not found["eligible"]
    assert found["reason"].startswith(REFUSED[name])


def test_a_logical_volume_is_the_same_by_each_of_its_names(volumes: Machine) -> None:
    uuid = volumes.say("blkid -s UUID -o value /dev/vg/plain").strip()
    [by_lvm] = check(volumes, "/dev/vg/plain")
    assert re.fullmatch(r"/dev/dm-\d+", by_lvm["device"])
    names = ["/dev/mapper/vg-plain", by_lvm["device"], f"/dev/disk/by-uuid/{uuid}", "/srv/data"]
    for name in names:
        assert check(volumes, name) == [{**by_lvm, "volume": name}]


def test_a_logical_volume_named_twice_by_two_names_is_refused(volumes: Machine) -> None:
    names = ["/dev/vg/plain", "/dev/vg/xfs", "/srv/data"]
    by_lvm, other, by_mount_point = check(volumes, *names)
    assert (by_lvm["eligible"], other["eligible"], by_mount_point["eligible"]) == (False, True, False)
    assert by_lvm["reason"].endswith(
        "is named 2 times in this request, as /dev/vg/plain and /srv/data; name it once"
    )


def test_a_device_mapper_node_made_without_udev_is_the_volume_too(volumes: Machine) -> None:
    """On a host without udev the nodes in /dev/mapper are device nodes, not links."""
    volumes.say("mknod /dev/mapper/own b $(stat -c '0x%t 0x%T' $(readlink -f /dev/vg/plain))")
    [found] = check(volumes, "/dev/mapper/own")
    assert (found["eligible"], found["file_system"]) == (True, "ext4")


def test_check_lists_every_volume_of_the_machine(volumes: Machine, verdicts: Verdicts) -> None:
    listed = {verdict["device"]: verdict for verdict in check(volumes)}
    for name, verdict in verdicts.items():
        same = listed[verdict["device"]]
        assert (name, same["eligible"], same["reason"]) == (name, verdict["eligible"], verdict["reason"])


# ---- a whole request ---------------------------------------------------------------------------------------------


@pytest.fixture
def serving(volumes: Machine, vhost: Vhost) -> Iterator[Machine]:
    """Give the machine with the worker in it serving the host vm01 of the test's vhost."""
    install(volumes, vhost.url, {})
    start(volumes)
    yield volumes
    volumes.run("pkill -TERM -f '[w]orker run'")
    wait_until(lambda: volumes.run("pgrep -f '[w]orker run'").code == 1, 30, "the worker to stop")


@pytest.fixture
def scheduler(vhost: Vhost) -> Iterator[Requester]:
    """Give a requester on the test's vhost."""
    scheduler = Requester(vhost.url)
    yield scheduler
    scheduler.close()


def test_exec_backs_a_logical_volume_up(volumes: Machine) -> None:
    install(volumes, "amqp://nobody@127.0.0.1:1/", {})
    done = volumes.run("python3 -m worker exec -", stdin=request("/dev/vg/plain"))
    assert done.code == 0, done.errors
    answer = etree.fromstring(done.output.encode())
    assert answer.findtext("metadata/status") == "success"
    command = "commands-output/command-output/metadata/command"
    assert (answer.findtext(command) or "").endswith("backup image /dev/vg/plain")


def test_exec_refuses_what_lies_in_a_logical_volume(volumes: Machine) -> None:
    install(volumes, "amqp://nobody@127.0.0.1:1/", {})
    done = volumes.run(
        "python3 -m worker exec -", stdin=request("/dev/vg/plain", "/dev/mapper/vg-pool_tdata")
    )
    assert done.code == 1, done.errors
    answer = etree.fromstring(done.output.encode())
    assert answer.findtext("metadata/error/code") == "volume-not-eligible"
    notes = {note.get("name"): note.get("eligible") for note in answer.findall("metadata/volume")}
    assert notes == {"/dev/vg/plain": "true", "/dev/mapper/vg-pool_tdata": "false"}


def test_a_request_on_a_logical_volume_comes_over_rabbitmq_and_is_answered(
    serving: Machine, scheduler: Requester
) -> None:
    asked = scheduler.ask(request("/dev/vg/snap", "/srv/data"), "host.vm01")
    answer = scheduler.answer(60)
    assert answer.text("metadata/status") == "success"
    assert answer.headers == {
        "tsm-host": "vm01",
        "tsm-outcome": "completed",
        "tsm-attempts": 1,
        "tsm-request-id": asked,
    }
    runs = [json.loads(line) for line in serving.say(f"cat {RUNS}").splitlines()]
    assert [run["argv"][-2:] for run in runs if run["event"] == "start"][-1] == ["/dev/vg/snap", "/srv/data"]


@pytest.mark.parametrize("kept", [True, False], ids=["its marks are on the disk", "at once"])
def test_a_request_outlives_a_power_cut_and_is_run_again(
    vhost: Vhost, scheduler: Requester, *, kept: bool
) -> None:
    with Machine(disks=(16,)) as machine:
        machine.say("echo ',,83' | sfdisk --quiet --label dos /dev/vdc; udevadm settle")
        install(machine, vhost.url, {"default": {"seconds": 3600}})
        machine.say("sync")
        start(machine)
        asked = scheduler.ask(request("/dev/vdc1"), "host.vm01")
        wait_until(lambda: machine.run(f"cat {RUNS}").output, 60, "dsmc to run in the machine")
        journal_owns_it = "the journal alone to have the request"
        wait_until(lambda: vhost.queue("tsm.host.vm01") == (0, 0), 30, journal_owns_it)
        if kept:
            machine.say("sync")
        machine.power_cut()
        machine.boot()
        assert sound(machine)
        install(machine, vhost.url, {})
        start(machine)
        answer = scheduler.answer(60)
        assert (answer.headers["tsm-request-id"], answer.headers["tsm-outcome"]) == (asked, "completed")
        assert (
            answer.headers["tsm-attempts"] == 2
        )  # though nothing of the first may be left but the journal's word
        runs = [json.loads(line) for line in machine.say(f"cat {RUNS}").splitlines()]
        assert [run["exit"] for run in runs if run["event"] == "end"] == [0]
        assert scheduler.silent()
