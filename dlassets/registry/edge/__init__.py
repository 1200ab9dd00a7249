"""A registered model as devices run it: a bundle of ONNX and OpenVINO graphs, and the program that answers by it."""
