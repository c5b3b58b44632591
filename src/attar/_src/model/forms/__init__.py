"""The forms in which people hold a trained model, each made a float32 ``nn.Module``, or refused with a way out."""
