infer_interface = None
