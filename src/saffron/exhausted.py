"""What a machine runs out of in the middle of a job, as one message each: disk, memory, permissions, the GPU.

Such errors say nothing about the file that was being read: readers let them pass instead of calling the file damaged.
"""

from __future__ import annotations

import errno
import re

_AGAIN = "then run the same command again, it goes on from what is finished"
_REMEDIES = {
    errno.ENOSPC: f"the disk is full: free some space, {_AGAIN}",
    errno.EDQUOT: f"the disk quota is used up: free some space, {_AGAIN}",
    errno.EFBIG: f"the file is larger than a file may be here (ulimit -f, or the file system): raise that limit, {_AGAIN}",
    errno.EROFS: f"the file system is read-only: mount it for writing or give another folder with --out, {_AGAIN}",
    errno.EACCES: f"permission denied: let this user read and write there, {_AGAIN}",
    errno.EPERM: f"not permitted: let this user read and write there, {_AGAIN}",
    errno.EIO: f"the disk or the network file system failed: see the system's log, {_AGAIN}",
    errno.ESTALE: f"the network file system lost the file: mount it again, {_AGAIN}",
    errno.EMFILE: f"too many open files: raise ulimit -n, {_AGAIN}",
    errno.ENFILE: f"too many open files on this machine: close some, {_AGAIN}",
    errno.ENOMEM: f"out of memory: run fewer jobs at once (make replicate CORES=1), or use a machine with more, {_AGAIN}",
}
#: How errors of libraries without an error number tell it: pyarrow's, safetensors'.
_NUMBERED = re.compile(r"\[errno (\d+)\]|\(os error (\d+)\)", re.IGNORECASE)
_GPU = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "NCCL error", "CUDA driver")
_GPU_MEMORY = ("out of memory", "_STATUS_ALLOC_FAILED")
_HOST_MEMORY = ("can't allocate memory", "bad_alloc")


def explained(error: BaseException) -> str | None:
    """One message with cause and remedy; None for an error that is not the machine's doing."""
    if isinstance(error, MemoryError):
        return f"{_REMEDIES[errno.ENOMEM]} ({_first_line(error)})"
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    told = _NUMBERED.search(text)
    if number is None and told is not None:
        number = int(told[1] or told[2])
    if number in _REMEDIES:
        name = getattr(error, "filename", None)
        return f"{'' if name is None else f'{name}: '}{_REMEDIES[number]} ({_first_line(error)})"
    if isinstance(error, RuntimeError):
        return _of_torch(error, text)
    return None


def _of_torch(error: RuntimeError, text: str) -> str | None:
    if any(words in text for words in _HOST_MEMORY):
        return f"{_REMEDIES[errno.ENOMEM]} ({_first_line(error)})"
    gpu = any(words in text for words in _GPU) or type(error).__name__ in ("OutOfMemoryError", "AcceleratorError")
    if gpu and any(words in text for words in _GPU_MEMORY):
        return (
            "out of GPU memory: free it from other programs (nvidia-smi), make the batch smaller, or use a larger GPU, "
            f"{_AGAIN} ({_first_line(error)})"
        )
    if gpu:
        return f"the GPU failed or was lost: see nvidia-smi and the system's log, {_AGAIN} ({_first_line(error)})"
    return None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
