"""The service: captures on an interval, as one configuration says."""
