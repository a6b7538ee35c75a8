"""Checkpoints and data between the cluster's file system and S3. No MPI but in `pulling`."""
