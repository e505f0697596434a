"""This file looks at the way to Postgres on another machine: whether it is encrypted, and to whom."""

from __future__ import annotations

import trio
from pydantic import SecretStr

from engine.doctor.finding import Outcome, broken, holds
from engine.doctor.installation import Installation
from engine.settings import leads_to_this_machine, sslmode_of

# By sslmode, what keeps to itself whatever goes over the network. With any other one, the server, or whoever
# stands in for it, says whether there is TLS.
_GIVES = {
    "require": "encrypted, to whoever answers, unless sslrootcert says who may; verify-full asks for it",
    "verify-ca": "encrypted, to a server of the authority in sslrootcert, whatever its name",
    "verify-full": "encrypted, to the server of that name",
}

_MEND = (
    "end {} in ?sslmode=verify-full&sslrootcert=… with the file of the authority that signed the server's "
    "certificate; verify-ca does not compare its name, and require alone encrypts to whoever answers"
)


async def check_encryption(installation: Installation) -> Outcome:
    await trio.lowlevel.checkpoint()
    settings = installation.settings
    urls = {
        "DATABASE_URL": settings.database_url,
        "SCHEDULER_ADMIN_DATABASE_URL": settings.admin_database_url,
    }
    elsewhere = {name: _sslmode(url) for name, url in urls.items() if url and not leads_to_this_machine(url)}
    for name, mode in elsewhere.items():
        if mode not in _GIVES:
            return broken(
                f"{name} leads to another machine with sslmode={mode}, by which everything can be read and "
                "changed on the way",
                _MEND.format(name),
            )
    if not elsewhere:
        return holds("Postgres is on this machine")
    return holds("; ".join(f"{name}: {_GIVES[mode]}" for name, mode in elsewhere.items()))


def _sslmode(url: SecretStr) -> str:
    mode = sslmode_of(url)
    # What it says may be anything, and is not ours to show.
    return mode if mode in (*_GIVES, "disable", "allow", "prefer") else "(none of those there are)"
