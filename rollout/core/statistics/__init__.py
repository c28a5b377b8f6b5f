"""Evidence that stays valid at every look, detectors, forecasts, sampling."""
