"""What comes in with a push: files are stored as they arrive and checked before anybody else."""
