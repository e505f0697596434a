"""This folder is a run on many workers: its range of ids cut into shards, handed out, and added up again."""
