"""This file tells when this process has no file descriptor left, for which the network gets the blame."""

from __future__ import annotations

import errno

# Of this process, and of the machine.
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)


def is_out_of_files(error: BaseException) -> bool:
    """Whether this is what the error comes from, however it was wrapped on its way.

    As a traceback shows it: what an error was raised from, else what it was raised amid unless it says that
    it has nothing to do with it.
    """
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, OSError) and each.errno in _OUT_OF_FILES:
            return True
        cause = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        if cause is not None:
            left.append(cause)
        # httpcore hides where its errors come from, and has it as what they say.
        left.extend(argument for argument in each.args if isinstance(argument, BaseException))
        if isinstance(each, BaseExceptionGroup):
            left.extend(each.exceptions)
    return False
