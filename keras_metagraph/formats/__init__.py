"""The layouts of files that hold MetaGraphs, and how to open them."""

from keras_metagraph.formats.layout import Export, Layout
from keras_metagraph.formats.registry import LAYOUTS, LayoutRegistry, open_export

__all__ = ["LAYOUTS", "Export", "Layout", "LayoutRegistry", "open_export"]
