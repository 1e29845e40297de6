"""The star schema as functions from DataFrame to DataFrame: history, dimensions, facts, rates,
metrics; and build, which calls them.

All of it is a function of Silver alone, whatever the order in which Silver was filled. An increment
works the same functions out for the keys that changed, so that it gives what a rebuild gives.
"""
