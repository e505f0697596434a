"""This folder is where pages of mentors come from."""
