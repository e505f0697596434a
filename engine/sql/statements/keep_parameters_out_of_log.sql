-- Until the end of the transaction, keep the parameters of statements out of the server's log, where one of them
-- is the secret. No parameters.
--
-- Returns is_kept_out: the log does not get to see them, or not without somebody changing it meanwhile.
select case
         when has_parameter_privilege('log_parameter_max_length', 'set')
           then set_config('log_parameter_max_length', '0', true) = '0'
         else current_setting('log_parameter_max_length') = '0'
              or (current_setting('log_statement') in ('none', 'ddl')
                  and current_setting('log_min_duration_statement') = '-1'
                  and current_setting('log_min_duration_sample') = '-1'
                  and current_setting('log_transaction_sample_rate')::float8 = 0
                  and current_setting('log_duration') = 'off')
       end
       and set_config('log_parameter_max_length_on_error', '0', true) = '0' as is_kept_out
