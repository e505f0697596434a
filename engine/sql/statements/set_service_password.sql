-- Give scheduler_service the password that hand_over_password.sql has kept: `alter role` takes no parameter.
do $$
begin
  execute format('alter role scheduler_service password %L', current_setting('scheduler.password'));
end $$
