-- What the tick would send, without saying it. Run as scheduler_owner. No parameters.
--
-- Returns one row: length, digest (SHA-256 in hex); both null if there is no secret that the owner can read.
select length(secret) as length,
       encode(sha256(convert_to(secret, 'UTF8')), 'hex') as digest
  from scheduler.read_secret() read(secret)
