"""This folder is the service: HTTP and the command line, over the public face of `engine`."""
