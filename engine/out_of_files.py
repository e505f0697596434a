"""This file tells when this process has no file descriptor left, for which the network gets the blame."""

from __future__ import annotations

import errno

# Of this process, and of the machine.
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)


def is_out_of_files(error: BaseException) -> bool:
    """Whether this is what the error comes from, however it was wrapped on its way."""
    if isinstance(error, OSError) and error.errno in _OUT_OF_FILES:
        return True
    causes = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    causes += [cause for cause in (error.__cause__, error.__context__) if cause is not None]
    return any(map(is_out_of_files, causes))
