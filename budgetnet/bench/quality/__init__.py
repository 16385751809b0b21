"""Benchmark of search quality: samplers replay searches on tables of networks that were trained before."""
