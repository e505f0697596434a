-- What a `do` block before it in the same transaction has found: such a block can't answer. No parameters.
--
-- Returns one row: found, JSON.
select current_setting('scheduler.found') as found
