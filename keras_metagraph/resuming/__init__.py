"""Going on with a killed `fit` where its newest checkpoint stands, bit for bit."""
