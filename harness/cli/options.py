"""Options and arguments that are no fields of harness.request.Request, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

SourceModel = Annotated[
    str | None,
    typer.Option("--source", help="The unquantized model that it was made from: id or folder."),
]
EngineVersion = Annotated[
    str | None,
    typer.Option("--engine", help="Also apply one version's rules, such as vllm==0.33.0."),
]
ProbedVllm = Annotated[
    Path | None,
    typer.Option("--vllm", help="Say instead what the vLLM of this environment can do."),
]
ForetoldFormat = Annotated[
    str | None,
    typer.Option("--format", help="Say instead which engine loads this format on which GPU."),
]
JunitFile = Annotated[
    Path | None, typer.Option("--junit", help="Also write the checks as JUnit XML.")
]
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
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Checkpoint = Annotated[Path, typer.Argument(help="Folder of a checkpoint.")]
Candidate = Annotated[
    Path | None, typer.Argument(metavar="CHECKPOINT", help="Folder of a checkpoint.")
]
Baseline = Annotated[
    str | None,
    typer.Option("--baseline", help="Unquantized model, or its scores: a run, or a bundle file."),
]
CandidateUrl = Annotated[
    str | None,
    typer.Option("--candidate-url", help="Instead of CHECKPOINT: a server that somebody runs."),
]
BaselineUrl = Annotated[
    str | None,
    typer.Option("--baseline-url", help="Instead of --baseline: the server to compare with."),
]
CandidateModel = Annotated[
    str | None,
    typer.Option("--candidate-model", help="Name under which --candidate-url knows the model."),
]
BaselineModel = Annotated[
    str | None,
    typer.Option("--baseline-model", help="Name under which --baseline-url knows the model."),
]
SaidToRun = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Folder that --candidate-url is said to run; is verified."),
]
Served = Annotated[str, typer.Argument(metavar="checkpoint", help="Folder of a checkpoint.")]
Target = Annotated[
    str, typer.Argument(metavar="target", help="Folder of a checkpoint, or URL of a server.")
]
TokenizerDir = Annotated[
    Path | None, typer.Option("--tokenizer", help="Folder of the tokenizer that URLs use.")
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
TaskNames = Annotated[
    list[str],
    typer.Option("--tasks", help="Tasks, A,B or repeated; a folder is all own tasks in it."),
]
TaskFolders = Annotated[
    list[Path] | None,
    typer.Option("--tasks-from", help="Folder of own lm-eval tasks; repeatable."),
]
MeasuredModel = Annotated[
    str, typer.Option("--baseline", help="The unquantized model: Hub id, folder, or 'canary'.")
]
NewFile = Annotated[Path, typer.Option("--out", help="The suite's YAML file, which is new.")]
Items = Annotated[
    int | None, typer.Option("--items", min=1, help="Items of each task at most; default: all.")
]
Chats = Annotated[
    bool | None,
    typer.Option("--chat/--no-chat", help="Ask in chats; default: where the model has a template."),
]
MeasuredCandidate = Annotated[
    Path | None,
    typer.Option("--candidate", help="A quantized checkpoint, to measure flip rates on."),
]
Repeats = Annotated[
    int, typer.Option("--repeats", min=1, max=1024, help="Times that each item is asked.")
]
Temperature = Annotated[
    float, typer.Option("--temperature", min=0, max=2, help="Of drawn answers; 0: greedy.")
]
TopP = Annotated[float, typer.Option("--top-p", min=0.01, max=1, help="Of drawn answers.")]
SuiteFile = Annotated[Path, typer.Argument(metavar="FILE", help="A suite's YAML file.")]
AskedModel = Annotated[
    str | None,
    typer.Option("--model", help="Also look at its chat template, positions and prompt lengths."),
]
RecordsDir = Annotated[
    Path | None, typer.Option("--out", help="Folder for server.log and deployment.json.")
]
FinishedRun = Annotated[Path, typer.Argument(help="A run directory.")]
RunA = Annotated[Path, typer.Argument(help="A run directory, such as the last good one.")]
RunB = Annotated[Path, typer.Argument(help="Another one.")]
NumFlips = Annotated[
    int, typer.Option("--flips", min=0, help="Items to show of those that are scored otherwise.")
]
MlflowUri = Annotated[
    str | None,
    typer.Option("--mlflow", help="Also tell MLflow, as http://127.0.0.1:5000 (extra `mlflow`)."),
]
WandbDir = Annotated[
    Path | None,
    typer.Option(
        "--wandb", help="Also write offline runs of Weights & Biases there (extra `wandb`)."
    ),
]
Layout = Annotated[
    str | None,
    typer.Option("--as", help="Instead: write both arms' scores to DIR as lm-eval or nel does."),
]
LayoutDir = Annotated[
    Path | None, typer.Argument(metavar="[DIR]", help="With --as: an empty folder, or a new one.")
]
BaselineArm = Annotated[
    Path, typer.Argument(help="The unquantized model's scores: of harness, or of another tool.")
]
CandidateArm = Annotated[Path, typer.Argument(help="The candidate's scores, likewise.")]
Key = Annotated[str, typer.Argument(help="Beginning of a key that `harness baseline list` shows.")]
BundleFile = Annotated[Path, typer.Argument(help="A file that `harness baseline export` wrote.")]
BundleOut = Annotated[Path, typer.Option("--out", help="File to write.")]
FaultNames = Annotated[
    list[str] | None,
    typer.Option(
        "--fault", help="One fault (or attack, with --tamper) alone; repeatable. Default: all."
    ),
]
Tamper = Annotated[
    bool,
    typer.Option(
        "--tamper", help="Tamper with the gate itself: files, records, baselines, reports."
    ),
]
ListFaults = Annotated[bool, typer.Option("--list", help="Name the faults and stop.")]
DrillEngine = Annotated[
    str | None, typer.Option("--engine", help="reference (the default) or vllm.")
]
DrillDir = Annotated[
    Path | None,
    typer.Option("--run-dir", help="Folder of its runs. Default: runs/drill, runs/tamper."),
]
DrillFresh = Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds.")]
Jobs = Annotated[
    int, typer.Option("--jobs", min=1, help="Runs at a time, each in a process of its own.")
]
