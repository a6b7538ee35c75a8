"""Clusters of AWS ParallelCluster: their configuration, what is wrong with one, what it costs, and the life of it.

The configuration is ParallelCluster's own YAML file, and no other one: `render` writes it once, with comments, and from
then on it is the user's.
"""
