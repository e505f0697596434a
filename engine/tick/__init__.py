"""This folder is the tick seen from the database: the jobs of pg_cron that call the service, and answers."""
