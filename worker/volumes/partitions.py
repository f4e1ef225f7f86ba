"""What a partition's type is called, whether dsmc can image it, and what to do where it cannot.

IBM: on Linux only partitions with the id 0x83 and logical volumes (reference/dsmc-facts.md 1.3). GPT knows no
such ids; its "Linux filesystem" is the same thing there. Types are written as blkid's PART_ENTRY_TYPE is:
`0x5` in an MBR, a GUID in lower case in a GPT. A new special case is a row in REMEDIES.
"""

from worker.volumes.gpt import TYPES as GPT
from worker.volumes.mbr import TYPES as MBR

LINUX_MBR = "0x83"
LINUX_GPT = "0fc63daf-8483-4772-8e79-3d69d8477de4"

# A remedy's blanks: {inside} the partitions in it, {volumes} the logical volumes on it, {disk} what it is cut
# from, {retype} the command that gives the partition Linux' type.
INSIDE = "name a partition inside it: {inside}"
VOLUMES = "name a logical volume on it: {volumes}"
MEMBER = "name a logical volume on the whole array: {volumes}"
NO_DATA = "it holds nothing to image; name a partition of type 0x83 or a logical volume"
RETYPE = (
    "back its files up with `dsmc incremental` or, if it is Linux data, give it the type of that: {retype}"
)
NO_GPFS = (
    "dsmc makes no image of GPFS (IBM's restriction): back its files up with `dsmc incremental` or mmbackup"
)

REMEDIES = {
    "0x5": INSIDE,
    "0xf": INSIDE,
    "0x85": INSIDE,
    "0x8e": VOLUMES,
    "e6d6d379-f507-44c2-a23c-238f2a3df928": VOLUMES,  # Linux LVM
    "0xfd": MEMBER,
    "a19d880f-05fc-4d3b-a006-743f0f84911e": MEMBER,  # Linux RAID
    "0x41": NO_DATA,  # PReP boot
    "0x82": NO_DATA,  # swap
    "0xee": NO_DATA,  # the MBR that protects a GPT
    "0xef": NO_DATA,  # EFI
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": NO_DATA,  # Linux swap
    "21686148-6449-6e6f-744e-656564454649": NO_DATA,  # BIOS boot
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b": NO_DATA,  # PowerPC PReP boot
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": NO_DATA,  # EFI System
    "e3c9e316-0b5c-4db8-817d-f92df00215ae": NO_DATA,  # Microsoft reserved
    "37affc90-ef7d-4e96-91c3-2d7ae055b174": NO_GPFS,
}


def named(scheme: str, kind: str) -> str:
    """Return the type `kind` of a partition table's `scheme` (blkid's PART_ENTRY_SCHEME) in words."""
    if scheme == "dos":
        number = int(kind, 16)
        return f"MBR type 0x{number:02x} ({MBR.get(number, 'unknown')})"
    if scheme == "gpt":
        return f"GPT type {kind} ({GPT.get(kind, 'unknown')})"
    return f"type {kind} in a partition table of the sort {scheme}"


def refusal(scheme: str, kind: str, *, gpt_linux_data: bool) -> str | None:
    """Return the remedy for a partition that dsmc cannot image by its type; None for one that it can.

    `gpt_linux_data` says whether GPT's "Linux filesystem" counts as IBM's 0x83.
    """
    if (scheme, kind) == ("dos", LINUX_MBR) or ((scheme, kind) == ("gpt", LINUX_GPT) and gpt_linux_data):
        return None
    if (scheme, kind) == ("gpt", LINUX_GPT):
        return (
            "this host's configuration (volumes.gpt_linux_data = false) keeps to what IBM names: "
            "an MBR partition of type 0x83 or a logical volume"
        )
    return REMEDIES.get(kind, RETYPE)
