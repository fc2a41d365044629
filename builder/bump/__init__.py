"""Move pins of forks and bases behind proof."""
