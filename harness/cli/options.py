"""The options that commands share; underscore spellings are those of Model-Optimizer's users."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option("--model", help="Hub id, folder, or 'canary'.")]
Qformat = Annotated[str | None, typer.Option("--qformat", help="A format: a file in recipes/.")]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", help="A recipe file, instead of --qformat.")
]
KvCache = Annotated[
    str | None,
    typer.Option("--kv-cache-qformat", "--kv_cache_qformat", help="none, fp8_cast or fp8."),
]
SuiteName = Annotated[
    str | None, typer.Option("--suite", help="A suite: a file in evals/suites/, or a path.")
]
Margin = Annotated[
    float | None, typer.Option("--margin", help="Allowed loss of each task, fraction of 1.")
]
SourceModel = Annotated[
    str | None,
    typer.Option("--source", help="The unquantized model that it was made from: id or folder."),
]
EngineVersion = Annotated[
    str | None,
    typer.Option("--engine", help="Also apply one version's rules, such as vllm==0.33.0."),
]
JunitFile = Annotated[
    Path | None, typer.Option("--junit", help="Also write the checks as JUnit XML.")
]
Engine = Annotated[str | None, typer.Option("--engine", help="auto, reference, vllm or docker.")]
Numerics = Annotated[str | None, typer.Option("--numerics", help="deployed or declared.")]
EngineArgs = Annotated[
    list[str] | None,
    typer.Option("--engine-arg", help="KEY=VALUE for the server of both arms; repeatable."),
]
TensorParallel = Annotated[
    int,
    typer.Option("--tensor-parallel-size", "--tensor_parallel_size", help="GPUs of one server."),
]
Vllm = Annotated[
    Path | None, typer.Option("--vllm", help="Environment that holds vLLM, or its python.")
]
Image = Annotated[
    str | None, typer.Option("--image", help="Image of the docker engine: digest, id or name.")
]
CalibData = Annotated[
    str | None,
    typer.Option("--calib-data", "--calib_data", help="canary, default, FILE.jsonl or a data set."),
]
CalibSize = Annotated[
    int | None, typer.Option("--calib-size", "--calib_size", help="Samples at most.")
]
CalibSeq = Annotated[
    int | None, typer.Option("--calib-seq", "--calib_seq", help="Tokens of a sample at most.")
]
Layerwise = Annotated[
    bool | None,
    typer.Option("--layerwise/--whole", help="Calibrate one decoder layer after the other."),
]
Experts = Annotated[
    str | None,
    typer.Option(
        "--experts", help="Routed experts in calibration: grouped, or eager (one by one)."
    ),
]
GpuMemory = Annotated[
    str | None,
    typer.Option("--gpu-memory", help="Most that quantizing may take of each GPU, such as 24GiB."),
]
HostMemory = Annotated[
    str | None, typer.Option("--host-memory", help="The same of the host, for each process.")
]
RanksOption = Annotated[
    int,
    typer.Option(
        "--ranks", min=1, help="Processes that calibrate and quantize together, a GPU each."
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Of a Hub model.")]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", help="Default: runs/<model>-<format>-<digest>.")
]
OutDir = Annotated[Path, typer.Option("--out", help="Folder to write into.")]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Resolve, check, estimate, print, stop.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Do every stage again.")]
Paranoid = Annotated[
    bool,
    typer.Option("--paranoid", help="Hash every file again; believe no hash remembered earlier."),
]
SkipVerify = Annotated[
    bool, typer.Option("--skip-verify", help="Do not check the files; the run cannot end GO.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Checkpoint = Annotated[Path, typer.Argument(help="Folder of a checkpoint.")]
Baseline = Annotated[
    str,
    typer.Option("--baseline", help="Unquantized model, or its scores: a run, or a bundle file."),
]
OtherBaseline = Annotated[
    str | None,
    typer.Option("--baseline", help="Instead of MODEL: another model, a run, or a bundle file."),
]
Waivers = Annotated[
    Path | None,
    typer.Option("--waivers", help="Reviewed file of failed checks that are accepted."),
]
Target = Annotated[str, typer.Argument(help="Folder of a checkpoint, or URL of a server.")]
TokenizerDir = Annotated[
    Path | None, typer.Option("--tokenizer", help="Folder of the tokenizer that a URL uses.")
]
ServedModel = Annotated[
    str | None, typer.Option("--served-model", help="Name under which a URL knows the model.")
]
MaxModelLen = Annotated[
    int | None,
    typer.Option(
        "--max-model-len",
        min=1,
        help="Tokens of prompt and answer together; default: the model's most, 4096 at most.",
    ),
]
RecordsDir = Annotated[
    Path | None, typer.Option("--out", help="Folder for server.log and deployment.json.")
]
FinishedRun = Annotated[Path, typer.Argument(help="A run directory.")]
