"""A document is read once, in memory linear in its length, and kept beside it; questions come later.

python examples/ask_a_document.py MODEL chapter.txt "Who came in?" "What did she say?"

Far text is read as thumbnails and opened where a question looks (docs/zoom.md), by any rotary model of transformers.
"""

import copy
import sys
from pathlib import Path

import torch

import foveate

PIECE = 2048  # tokens read at once

name, document, *questions = sys.argv[1:]
model, tokenizer = foveate.load(name)
zoomed = foveate.zoom(model)
kept = Path(document).with_suffix(".zoom")
read = tokenizer(Path(document).read_text(encoding="utf-8"), return_tensors="pt").input_ids.to(model.device)

if kept.exists():
    cache = foveate.ZoomCache.load(kept, model)
else:
    cache = zoomed.cache()
    with torch.inference_mode():
        for piece in read.split(PIECE, 1):
            # one token's logits: those of all would be tokens × vocabulary
            model(piece, past_key_values=cache, logits_to_keep=1)
    cache.save(kept, model)
print(f"{cache.get_seq_length():,} tokens in {cache.nbytes / 1e6:.1f} MB, kept in {kept}")

for question in questions:
    asked = tokenizer(f"\n\nQuestion: {question}\nAnswer:", return_tensors="pt", add_special_tokens=False).input_ids
    ids = torch.cat((read, asked.to(model.device)), 1)
    # the questions do not see one another: each goes on from a copy
    answer = model.generate(ids, past_key_values=copy.deepcopy(cache), max_new_tokens=60, do_sample=False)
    print(f"\n{question}\n{tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True).strip()}")
