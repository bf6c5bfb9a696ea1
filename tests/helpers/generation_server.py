"""A generation server that generates nothing: a stand-in that answers /health, started as the real one is."""

import sys
from pathlib import Path

from mini_r1.generation.server import ServerPlan, plan_server
from mini_r1.recipe.read import parse_recipe

STAND_IN = """
import http.server, os, sys, time
mode, port = sys.argv[1], int(sys.argv[2])
print("stand-in", mode, "pid", os.getpid(), flush=True)
if mode == "crash": sys.exit(7)
if mode == "never": time.sleep(600)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow": time.sleep(600)
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class StandIn(ServerPlan):
    """A plan whose command is the stand-in, in the mode that the name of the model says."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", STAND_IN, str(self.model.model_name_or_path), str(self.port)]


def make_plan(folder: Path, mode: str = "serve", timeout: float = 30.0, kind: type[ServerPlan] = StandIn) -> ServerPlan:
    script, training, model = parse_recipe(
        ["--model_name_or_path", mode, "--output_dir", str(folder), "--use_cpu", "true", "--bf16", "false"]
    )
    training.vllm_server_timeout = timeout
    made = plan_server(script, training, model, gpus=())
    return kind(**{name: getattr(made, name) for name in made.__dataclass_fields__})
