"""How dsmc is called: where the program is, and the argument list of `backup image`."""

import os
import shutil
import sys
from collections.abc import Sequence

from worker.errors import TsmWorkerError


class DsmcNotFound(TsmWorkerError):
    """dsmc is not where the configuration says, or may not be executed."""


def find(command: Sequence[str]) -> list[str]:
    """Given `dsmc.command` of the configuration, return it with the program's full path.

    Raise DsmcNotFound, naming what was tried, if there is no such program.
    """
    program, *arguments = command
    path = shutil.which(program)
    if path is None:
        tried = program if os.path.dirname(program) else f"{program} in {os.environ.get('PATH', '')}"  # noqa: PTH120
        raise DsmcNotFound(
            f"dsmc is not there or not executable: tried {tried}; install the Storage Protect client, "
            "or set dsmc.command in the configuration"
        )
    if sys.platform == "win32" and path.lower().endswith((".bat", ".cmd")):
        # Whoever starts one starts cmd.exe, to which `&` in an argument is another command.
        raise DsmcNotFound(
            f"{path} is a batch file, and arguments would be commands in it; name dsmc.exe itself"
        )
    return [path, *arguments]


def backup_image(options: Sequence[str], volumes: Sequence[str]) -> list[str]:
    """Return the arguments that make dsmc back up images: the options as checked, then the volumes."""
    return ["backup", "image", *options, *volumes]


def shown(arguments: Sequence[str]) -> str:
    """Return the command as a response shows it: `dsmc` and its arguments, one with blanks in double quotes."""
    return " ".join(f'"{word}"' if " " in word else word for word in ("dsmc", *arguments))
