"""Readers of official data sets, one file each."""
