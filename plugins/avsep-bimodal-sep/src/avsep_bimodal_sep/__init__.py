"""BiModalSep (ICLR 2024): separation by text, learned without solo recordings."""
