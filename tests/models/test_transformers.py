"""Models of transformers: quantized, packed, opened and compared with the floating-point module.

Small configurations with random weights, as nothing is downloaded. Each goes through with weights and activations of 8
bits, and with weights of 4 bits only; batches have masks, and labels by which the module would compute its own loss.
"""

import functools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import attar
from attar._src.core.errors import AttarWarning, ModelError
from attar._src.core.tensors import Quantized
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.capture import capture
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context

transformers = pytest.importorskip("transformers", reason="pip install 'attar[hf]'")

WORDS, EXAMPLES = 60, 16
TEXT = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    # With the usual 0.02 the outputs of an untrained model hardly depend on its inputs.
    "initializer_range": 0.2,
}
DECODER = TEXT | {"num_key_value_heads": 1, "bos_token_id": 1, "eos_token_id": 2}
IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 16,
    "patch_size": 4,
    "initializer_range": 0.2,
}
T5 = {"vocab_size": WORDS, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
SPEECH = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
    "initializer_range": 0.2,
}
WHISPER = {
    "vocab_size": WORDS,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "max_target_positions": 20,
    "init_std": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def tokens(length=10):
    """Return token ids and masks of texts of 7 to 10 tokens."""
    ids = torch.randint(5, WORDS, (EXAMPLES, length))
    mask = (torch.arange(length) < length - torch.arange(EXAMPLES)[:, None] % 4).long()
    return {"input_ids": ids, "attention_mask": mask}


def texts():
    return tokens() | {"labels": torch.arange(EXAMPLES) % 2}


def words():
    return tokens() | {"labels": torch.randint(0, WORDS, (EXAMPLES, 10))}


def images(size=16):
    """Return images of different colours; the mean of pure noise would hardly differ between them."""
    pixels = torch.randn(EXAMPLES, 3, 1, 1) + 0.5 * torch.randn(EXAMPLES, 3, size, size)
    return {"pixel_values": pixels, "labels": torch.arange(EXAMPLES) % 2}


#: Name -> the class, its configuration's class and fields, and a batch.
MODELS = {
    "bert": ("BertForSequenceClassification", "BertConfig", TEXT, texts),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"vocab_size": WORDS, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64, "initializer_range": 0.2},
        texts,
    ),
    "roberta": ("RobertaForTokenClassification", "RobertaConfig", TEXT | {"pad_token_id": 1}, tokens),
    # Two layers with the same weights.
    "albert": (
        "AlbertForSequenceClassification",
        "AlbertConfig",
        TEXT | {"embedding_size": 16, "num_hidden_layers": 2},
        texts,
    ),
    "electra": ("ElectraForPreTraining", "ElectraConfig", TEXT | {"embedding_size": 16}, tokens),
    # The matrix of the embedding is also that of the head.
    "mpnet": ("MPNetForMaskedLM", "MPNetConfig", TEXT, words),
    "deberta": (
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
        texts,
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {
            "vocab_size": WORDS,
            "n_embd": 32,
            "n_layer": 1,
            "n_head": 2,
            "initializer_range": 0.2,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        words,
    ),
    "llama": ("LlamaForCausalLM", "LlamaConfig", DECODER, words),
    "gpt neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", TEXT | {"bos_token_id": 1, "eos_token_id": 2}, words),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", DECODER | {"tie_word_embeddings": True}, words),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", DECODER | {"head_dim": 16}, words),
    "t5 encoder": ("T5EncoderModel", "T5Config", T5, tokens),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        T5,
        lambda: tokens() | {"decoder_input_ids": torch.randint(5, WORDS, (EXAMPLES, 6))},
    ),
    "vit": ("ViTForImageClassification", "ViTConfig", IMAGE, images),
    "convnext": (
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "patch_size": 2},
        images,
    ),
    "resnet": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"},
        lambda: images(32),
    ),
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config", SPEECH, lambda: {"input_values": torch.randn(EXAMPLES, 400)}),
    "whisper": (
        "WhisperModel",
        "WhisperConfig",
        WHISPER,
        lambda: {
            "input_features": torch.randn(EXAMPLES, 8, 40),
            "decoder_input_ids": torch.randint(5, WORDS, (EXAMPLES, 6)),
        },
    ),
    "clip texts": (
        "CLIPTextModelWithProjection",
        "CLIPTextConfig",
        TEXT | {"projection_dim": 16, "eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 0},
        tokens,
    ),
    "clip images": (
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        IMAGE | {"projection_dim": 16},
        lambda: {"pixel_values": images()["pixel_values"]},
    ),
}


def made(name):
    """Return a model with random weights, as it would be in training, and a batch."""
    kind, config, fields, batch = MODELS[name]
    torch.manual_seed(0)
    model, inputs = getattr(transformers, kind)(getattr(transformers, config)(**fields)), batch()
    norms = [each for each in model.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        # At the statistics of the start, 0 and 1, the values of random layers fade away.
        model.train()(**inputs)
    return model, inputs


def signal_to_noise(wanted, found):
    """Return it in decibel; what is the same for all examples is no signal."""
    wanted, found = (np.asarray(each, np.float64) for each in (wanted, found))
    return 10 * np.log10(wanted.var(axis=0).mean() / max(((wanted - found) ** 2).mean(), 1e-30))


def floating(model, batch):
    """Return the floating-point outputs that are tensors, by name."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    with torch.no_grad():
        outputs = model.eval()(**inputs)
    return {name: value.numpy() for name, value in outputs.items() if isinstance(value, torch.Tensor)}


@functools.cache
def at_8_bits(name):
    """Return a model's batch, its floating-point outputs, and the model with weights and activations of 8 bits."""
    model, batch = made(name)
    wanted = floating(model, batch)
    quantized = attar.quantize(model.train(), batch, bits=8, activations=8, labels=batch.get("labels"))
    assert model.training
    return batch, wanted, quantized


# Rounding to b bits with the step s = max / (2^(b-1) - 1) makes noise s^2 / 12. The weights of a layer, normal numbers,
# have a largest of about 3 deviations: signal to noise 10.8 + 20 log10((2^(b-1) - 1) / 3), 43 dB at 8 bits, 18 dB at 4.
# Four to eight roundings, one behind the other, add up to 6 to 9 dB; outputs that are small differences lose as much.
@pytest.mark.parametrize("name", MODELS)
def test_a_model(name, tmp_path):
    batch, wanted, quantized = at_8_bits(name)
    # The export takes most of the time, so the second is made of the same graph.
    traced = quantized.compressed.graphs["main"].traced
    weights_only = PostTrainingQuantize(bits=4).run(CompressedModel.of(traced), Context(quantized.data))
    for bits, least, each in ((8, 20, quantized), (4, 6, replace(quantized, compressed=weights_only))):
        with warnings.catch_warnings():
            # Random weights keep little of their order at 4 bits, and the report says so.
            warnings.simplefilter("ignore", AttarWarning)
            report = each.save(tmp_path / "m.attar")
        assert ("metric" in report["fidelity"]) == ("labels" in batch)
        check_file(tmp_path / "m.attar", batch, wanted, least)
        tensors = each.compressed.tensors.values()
        assert {tensor.scheme.bits for tensor in tensors if isinstance(tensor, Quantized)} == {bits}


def check_file(path, batch, wanted, least):
    """Check inputs and outputs of a file, and its noise, also on fewer and shorter examples."""
    session = attar.Session(path)
    assert [port.name for port in session.inputs] == [each for each in batch if each != "labels"]
    found = session.run({port.name: batch[port.name].numpy() for port in session.inputs})
    assert {each: array.shape for each, array in found.items()} == {each: a.shape for each, a in wanted.items()}
    ratios = {each: signal_to_noise(wanted[each], array) for each, array in found.items()}
    assert min(ratios.values()) > least, ratios
    fewer = session.run({port.name: batch[port.name][:3].numpy() for port in session.inputs})
    for each, array in fewer.items():
        # Products of a batch may be summed in another order.
        np.testing.assert_allclose(array, found[each][:3], atol=0.05 * np.abs(found[each]).max())


def test_an_encoder_and_decoder_without_inputs_of_the_decoder():
    model, batch = made("t5")
    del batch["decoder_input_ids"]
    with pytest.raises(ModelError, match=r"also takes decoder_input_ids: add them .* model.get_encoder\(\)"):
        attar.quantize(model, batch)
    encoder = capture(model.get_encoder(), [*batch.values()], names=[*batch], train=False)
    assert encoder.outputs == ("last_hidden_state",)


def test_layers_behind_casts_run_in_integers(tmp_path):
    """Norms of many decoders end in ``.type_as(x)``, which does nothing in float32."""
    _, _, quantized = at_8_bits("gemma")
    assert set(quantized.left.values()) == {"attention's own products stay in floating point"}
    quantized.save(tmp_path / "m.attar")
    integer = attar.Session(tmp_path / "m.attar").integer_layers()
    assert {name.rpartition(".")[2] for name in integer} >= {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj"}


def test_experts_with_a_kernel_that_onnx_lacks():
    torch.manual_seed(0)
    config = transformers.MixtralConfig(**DECODER, num_local_experts=2, num_experts_per_tok=1)
    model, batch = transformers.MixtralForCausalLM(config), words()
    with pytest.raises(ModelError, match=r"grouped_mm\w* has no form in ONNX: compute it outside"):
        attar.quantize(model, batch)
    model.set_experts_implementation("batched_mm")
    quantized = attar.quantize(model, batch, bits=8)
    assert [name for name in quantized.left if "experts" in name]
