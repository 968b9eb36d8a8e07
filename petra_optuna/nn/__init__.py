"""Mathematics on modules; knows no task, no recipe and no study."""
