-- Until the end of the transaction, keep the parameters of statements out of the server's log, where one of them
-- is the secret. No parameters.
--
-- Returns one row, or none where the role may not change that.
select set_config('log_parameter_max_length', '0', true)
 where has_parameter_privilege('log_parameter_max_length', 'set')
