"""All rows of the table, by theme."""

from rows import laplacians, memory, ranks, start, sums, systems

TABLE = [*laplacians.ROWS, *systems.ROWS, *sums.ROWS, *ranks.ROWS, *start.ROWS, *memory.ROWS]
