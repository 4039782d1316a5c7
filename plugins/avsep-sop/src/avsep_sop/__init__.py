"""The Sound of Pixels (Zhao et al., ECCV 2018), for avsep-zoo."""
