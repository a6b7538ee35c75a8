"""Decomposition, fields, boundary conditions and halo exchange. Its modules are read in this order:

decomposition, halo (pure plans) -> communicator, memory, copying -> boundary, field, walls, exchange -> cartesian.
"""
