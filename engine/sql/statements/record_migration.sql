-- A migration was applied.
--
-- $1 version  text  the number its file begins with
-- $2 name     text  of its file, without the ending
-- $3 checksum text  SHA-256 of the file in hex
--
-- Returns nothing.
insert into scheduler.migrations (version, name, checksum) values ($1, $2, $3)
