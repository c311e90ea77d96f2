"""As much of a W&B server as its client needs to send a run, on loopback; it can stop answering at any time."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Keeps what it is sent: `runs` has each run's last upsert, `history` its rows by line.

    With ``hang`` set to ``"all"`` or ``"rows"`` it takes such requests and never answers.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, hang: str | None = None, refuse: int | None = None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.hang, self.refuse = hang, refuse
        self.runs: dict[str, dict] = {}
        self.history: dict[str, dict[int, dict]] = {}
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that goes while it is answered is what these tests are about."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, value, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer({})

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        rows = self.path.endswith("/file_stream")
        server.asked.append(self.path)
        if server.hang == "all" or (server.hang == "rows" and rows):
            threading.Event().wait()
        if server.refuse:
            return self.answer({"errors": [{"message": "api_key not valid"}]}, server.refuse)
        if rows:
            return self.take(self.path.split("/")[-2], json.loads(body))
        if self.path.endswith("/graphql"):
            return self.answer({"data": self.graphql(json.loads(body))})
        return self.answer({})

    def take(self, run: str, sent: dict) -> None:
        part = sent.get("files", {}).get("wandb-history.jsonl")
        if part:
            kept = self.server.history.setdefault(run, {})
            kept |= {part["offset"] + i: json.loads(line) for i, line in enumerate(part["content"])}
        for line in sent.get("files", {}).get("wandb-summary.json", {}).get("content", []):
            self.server.runs.setdefault(run, {}).setdefault("summary", {}).update(json.loads(line))
        if sent.get("complete"):
            self.server.runs.setdefault(run, {})["exitcode"] = sent.get("exitcode")
        self.answer({})

    def graphql(self, asked: dict) -> dict:
        about, name = asked.get("variables") or {}, asked.get("operationName")
        if name == "UpsertBucket":
            run = self.server.runs.setdefault(about["name"], {})
            run |= {k: v for k, v in about.items() if v is not None}
            project = {"id": "p", "name": "dyt", "entity": {"id": "e", "name": "team"}}
            bucket = {"id": "b", "name": about["name"], "displayName": run.get("displayName"), "project": project}
            count = len(self.server.history.get(about["name"], {}))
            return {"upsertBucket": {"inserted": True, "bucket": bucket | {"historyLineCount": count, "config": "{}"}}}
        if name == "CreateRunFiles":
            files = [{"name": f, "uploadUrl": f"{self.server.url}/upload/{f}"} for f in about["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if name == "RunResumeStatus":
            model = {"id": "p", "name": "dyt", "entity": {"id": "e", "name": "team"}}
            return {"model": model | {"bucket": self.stored(about["name"])}}
        return {}

    def stored(self, run: str) -> dict | None:
        """What a client that resumes is told: how many rows are here, and the last one."""
        rows = self.server.history.get(run)
        if not rows:
            return None
        bucket = {"id": "b", "name": run, "displayName": run, "summaryMetrics": "{}", "config": "{}", "tags": []}
        tails = {"historyTail": json.dumps([json.dumps(rows[max(rows)])]), "eventsTail": "[]"}
        counts = {"historyLineCount": len(rows), "eventsLineCount": 0, "logLineCount": 0}
        return bucket | tails | counts | {"wandbConfig": '{"t": 1}'}
