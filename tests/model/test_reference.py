"""The oracle itself, against an independent implementation of the part that has one."""

import torch
from transformers import LlamaConfig, LlamaModel

from contracts.checks import assert_same, make_decoder, make_rows
from contracts.walks import small
from foveate.model.reference import reference


def test_a_plain_walk_is_llama() -> None:
    decoder = make_decoder(small("3@1", width=24, heads=4, kv_heads=2, feed_forward=20))
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=20,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    llama = LlamaModel(config).double()
    with torch.no_grad():
        llama.norm.weight.copy_(decoder.norm.weight)
        for ours, theirs in zip(decoder.steps[0].layers, llama.layers, strict=True):
            q, k, v = ours.qkv_proj.weight.split((24, 12, 12))
            gate, up = ours.gate_up_proj.weight.chunk(2)
            for parameter, value in {
                theirs.input_layernorm.weight: ours.attention_norm.weight,
                theirs.self_attn.q_proj.weight: q,
                theirs.self_attn.k_proj.weight: k,
                theirs.self_attn.v_proj.weight: v,
                theirs.self_attn.o_proj.weight: ours.o_proj.weight,
                theirs.post_attention_layernorm.weight: ours.mlp_norm.weight,
                theirs.mlp.gate_proj.weight: gate,
                theirs.mlp.up_proj.weight: up,
                theirs.mlp.down_proj.weight: ours.down_proj.weight,
            }.items():
                parameter.copy_(value)
        x_TD = make_rows(decoder, [17])[0]
        expected = llama(inputs_embeds=x_TD[None]).last_hidden_state[0]
        # transformers computes rotary angles in fp32
        assert_same(reference(decoder, x_TD), expected, 1e-5, "reference")
        assert_same(decoder(x_TD[None])[0], expected, 1e-5, "decoder")
