"""This folder is the charts: pure functions from runs to what a template draws.

Places and lengths are shares of the plot, in percent with a unit, so that a plot fits any width and its
text stays readable: there is no view box that would scale it. Nothing here is styled; classes name what a
thing is.
"""
