-- Bring what pg_net has heard by this time into scheduler.invocations. No parameters. Returns nothing of use.
select scheduler.record_answers()
