"""Eligibility on Linux: every named volume gets its verdict within a time, whatever hangs."""

from collections.abc import Sequence
from dataclasses import replace

from worker.volumes import devices, eligibility, paths
from worker.volumes.devices import Device
from worker.volumes.inquiry import in_time, refuse_repeated
from worker.volumes.kernel import Kernel, KernelError
from worker.volumes.mounts import Mounts
from worker.volumes.verdict import Verdict
from worker.words import Platform

_HUNG = "a device or file system on the way to it hangs: repair that (dmesg, multipath -ll) and try again"


class LinuxVolumes:
    """The volumes of the Linux host that `kernel` shows.

    `gpt_linux_data` says whether a GPT partition of the type "Linux filesystem" is eligible as an MBR one of
    type 0x83 is, the only one that IBM names. `timeout`, in seconds, bounds each call: what has given no
    answer by then is refused, and the daemon thread that waits for it is left behind.
    """

    platform = Platform.LINUX

    def __init__(self, kernel: Kernel, *, gpt_linux_data: bool = True, timeout: float = 30.0) -> None:
        self._kernel = kernel
        self._gpt_linux_data = gpt_linux_data
        self._timeout = timeout

    def judge(self, names: Sequence[str]) -> list[Verdict]:
        """Return the verdict on each of `names`, in their order.

        Names of one call that lead to the same device are all refused: dsmc would image it as often.
        """
        asked = [Verdict(name, eligible=False, reason="") for name in names]
        return refuse_repeated(in_time(asked, self._by_name, self._timeout, _HUNG))

    def all(self) -> list[Verdict]:
        """Return the verdict on every block device of this host that has a size, by device.

        What the device mapper made goes by its name in /dev/mapper, everything else by its node.
        """
        found = {device.node: device for device in devices.everything(self._kernel)}
        unjudged = [Verdict(d.friendly, eligible=False, reason="", device=d.node) for d in found.values()]
        return in_time(
            unjudged,
            lambda asked: self._by_number(asked, found[asked.device or ""].number),
            self._timeout,
            _HUNG,
        )

    def _by_name(self, asked: Verdict) -> Verdict:
        mounts = Mounts.read(self._kernel.text("/proc/self/mountinfo"))
        place = paths.resolve(self._kernel, mounts, asked.volume)
        return self._by_number(asked, place.number, place.node)

    def _by_number(self, asked: Verdict, number: str, node: str = "") -> Verdict:
        device = devices.find(self._kernel, number)
        if device is None:
            reason = f"{node or asked.volume} stands for device {number}, which the kernel does not have; see dmesg"
            return replace(asked, reason=reason)
        if refusal := eligibility.by_kind(asked.volume, device):
            return refusal
        try:
            return self._by_content(asked, device, node or self._node_of(device))
        except KernelError as refusal:
            return replace(asked, reason=str(refusal), device=device.node)

    def _by_content(self, asked: Verdict, device: Device, node: str) -> Verdict:
        probed = self._kernel.probe(node)
        spanned = self._kernel.names(f"/sys/fs/btrfs/{probed['UUID']}/devices") if "UUID" in probed else []
        return eligibility.by_content(
            asked.volume, device, probed, members=len(spanned), gpt_linux_data=self._gpt_linux_data
        )

    def _node_of(self, device: Device) -> str:
        """Return the node of `device`; raise KernelError where that path is another device's, or none."""
        there = self._kernel.node(device.node)
        if there.number != device.number:
            raise KernelError(
                f"{device.node} should be the node of device {device.number} and is {there.number or there.kind}; "
                "see udev (udevadm trigger)"
            )
        return device.node
