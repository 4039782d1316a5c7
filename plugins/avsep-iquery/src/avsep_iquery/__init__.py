"""iQuery: Instruments as Queries for Audio-Visual Sound Separation (Chen et al., CVPR 2023), for avsep-zoo."""
