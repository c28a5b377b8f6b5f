"""Example systems: their catalog, their records, the story of their replay."""
