"""IAL-CMS: cross-modal attention and adversarial learning of independence (AAAI 2024) for avsep-zoo."""
