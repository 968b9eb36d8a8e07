"""What the studies of time series share: controls, a confirmed search, files of the archives."""
