"""DAVIS and DAVIS-Flow: separated spectrograms are generated out of noise, guided by frames."""
