"""AVSGS: scene graphs of detected objects tell which sounds to take out of a mixture."""
