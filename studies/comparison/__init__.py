"""The comparison of samplers: problems, runs, statistics, tables and plots."""
