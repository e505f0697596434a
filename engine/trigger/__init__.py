"""This folder is who evaluates: the trigger engine, over HTTP or in the database."""
