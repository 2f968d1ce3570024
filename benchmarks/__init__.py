"""Figures as ratios: ours against a stated floor, in one run, on whatever machine this is."""
