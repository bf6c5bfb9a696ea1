"""Put on PYTHONPATH by tests: DeepSpeed's CPU collectives would be compiled for two minutes; gloo does without."""

import os

if "RANK" in os.environ and os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
