"""Warm starts: values of any checkpoint for the variables of any Keras model.

The room is not called `warm_start`, since the function of that name is a name of the
package itself, and importing a module would replace it.
"""
