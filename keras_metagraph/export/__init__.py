"""From a Keras model to a MetaGraphDef."""
