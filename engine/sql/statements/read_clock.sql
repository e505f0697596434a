-- What time it is for Postgres: instants of the ledger are compared with nothing else.
--
-- Returns the moment at which this transaction began.
select now() as at
