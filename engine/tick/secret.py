"""This file is where the tick's secret is kept: in Vault, or in a table; never in both, never in neither."""

from __future__ import annotations

from engine.database import Transaction
from engine.statements import load_statement
from engine.tick.transaction import kept_if_it_works

_IN_VAULT = load_statement("keep_secret_in_vault")
_IN_FALLBACK = load_statement("keep_fallback_secret")
_FORGET_IN_VAULT = load_statement("forget_secret_in_vault")
_BECOME_OWNER = load_statement("become_owner")
_BECOME_ADMINISTRATOR = load_statement("become_administrator")
_DIGEST = load_statement("digest_of_secret")


async def keep_secret(transaction: Transaction, secret: str, name: str, *, has_vault: bool) -> str:
    """Put it where the owner alone can read it; `name` is its name in Vault. Returns what was done.

    **Cancellation:** leave the transaction too; it rolls back.
    """
    await transaction.fetch(_IN_FALLBACK, None)
    if has_vault:
        async with kept_if_it_works(transaction):
            await transaction.fetch(_IN_VAULT, secret, name)
            await transaction.execute(_BECOME_OWNER)
            [read] = await transaction.fetch(_DIGEST)
            await transaction.execute(_BECOME_ADMINISTRATOR)
            if read["length"] is not None:
                return f"the secret is in Vault, as {name}"
            await transaction.fetch(_FORGET_IN_VAULT, name)
    await transaction.fetch(_IN_FALLBACK, secret)
    why = "which scheduler_owner may not read here" if has_vault else "of which there is none here"
    return f"the secret is in scheduler.fallback_secret, which its owner alone reads, instead of Vault, {why}"


async def forget_secret_in_vault(transaction: Transaction, name: str) -> str | None:
    """Take it out of Vault. Returns what was done, or that it could not be; None if it was not there.

    **Cancellation:** as `keep_secret`.
    """
    async with kept_if_it_works(transaction):
        forgotten = await transaction.fetch(_FORGET_IN_VAULT, name)
        return "removed the secret from Vault" if forgotten else None
    return f"Vault may still have the secret, as {name}: this role may not remove it there"
