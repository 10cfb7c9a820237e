# The commands of this repository. `make demo` and `make test` need a Debian machine with Python 3.11 or newer.
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-long lint bench bench-flow bench-receive bench-ecg bench-trust bench-inference demo-model tools clean

demo: $(STAMP)
	$(BIN)/pulmolink demo

test: $(STAMP) tools lint
	$(BIN)/pytest -m "not long" -q

test-long: $(STAMP) tools
	$(BIN)/pytest -m long -q --timeout=3600

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: bench-flow bench-ecg

bench-flow: $(STAMP)
	$(BIN)/python -m tests.benchmarks.flow

# The receiver beside Orthanc, DCMTK and pynetdicom: about half an hour on two cores.
bench-receive: $(STAMP)
	$(BIN)/python -m tests.benchmarks.receive

# Drawn and degraded sheets with known truth: read, refused, wrong.
bench-ecg: $(STAMP)
	$(BIN)/python -m tests.benchmarks.ecg

# Films and ECGs that are not what their tags say: does the shipped package see it?
bench-trust: $(STAMP)
	$(BIN)/python -m tests.benchmarks.trust

# Examinations a second and memory of ViT-L/14, beside the plain way, other engines and the machine's own limit: several
# minutes and 15 GB of memory on two cores. Other engines are measured where `pip install openvino onnx onnxruntime` was.
bench-inference: $(STAMP)
	$(BIN)/python -m tests.benchmarks.inference

# Train the shipped synthetic-demo package again, from nothing but the code here (about ten minutes on two cores).
demo-model: $(STAMP)
	$(BIN)/pulmolink model train-demo --out inference/packages/synthetic-demo

tools:
	sh deploy/test_tools.sh

$(STAMP): requirements.lock pyproject.toml deploy/make_venv.sh
	sh deploy/make_venv.sh

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache demo-output bench-output
