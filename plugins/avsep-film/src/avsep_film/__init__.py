"""A U-Net that a class label conditions by FiLM, and that sees nothing: a baseline for avsep-zoo."""
