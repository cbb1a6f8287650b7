"""Peak memory of this process. Beside the runners, and importing nothing of Sonant."""

import resource
import sys
from pathlib import Path


def peak_megabytes() -> float:
    """Largest resident size so far, in MiB.

    On Linux `ru_maxrss` begins with what the process that started this one had; the status file does not.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
