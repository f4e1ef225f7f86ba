"""The verdict on one volume: may dsmc make an image of it, and why."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """What eligibility says of one volume.

    `volume` is the name as the request gave it, `device` the one thing that all names of the volume resolve
    to (Linux: the kernel's device node such as `/dev/sda1` or `/dev/dm-3`; Windows: the volume's GUID path),
    `file_system` the type found on it (None: none recognised, a raw volume), `partition_type` the partition's
    type as the kernel's probes name it (`0x83`, a GPT type GUID, `lvm`), `reason` what was found, and where
    the volume is refused the remedy as well.
    """

    volume: str
    eligible: bool
    reason: str
    device: str | None = None
    file_system: str | None = None
    partition_type: str | None = None
