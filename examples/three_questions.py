"""Three questions about one document, which is read once: a copy of the cache goes on from it for each.

python examples/three_questions.py runs/mine chapter.txt "Who came in?" "What did she say?" "Where were they?"
"""

import copy
import sys
from pathlib import Path

import torch

from foveate import load

run, document, *questions = sys.argv[1:]
model, tokenizer = load(run)
read = tokenizer(Path(document).read_text(encoding="utf-8"), return_tensors="pt").input_ids.to(model.device)

cache = model.read(read, model.make_cache())
print(f"{read.shape[1]:,} tokens read into {cache.nbytes / 1e6:.1f} MB")
# for another day: cache.save("document.cache", model), and FoveateCache.load("document.cache", model)

for question in questions:
    asked = tokenizer(f"\n\n{question}\n", return_tensors="pt", add_special_tokens=False).input_ids.to(model.device)
    ids = torch.cat((read, asked), 1)
    answer = model.generate(ids, past_key_values=copy.deepcopy(cache), max_new_tokens=100, do_sample=True)
    print(f"\n{question}\n{tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True)}")
