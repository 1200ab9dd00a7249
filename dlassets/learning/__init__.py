"""From photos to a trained model: backbones, features, the loader, training, evaluation."""
