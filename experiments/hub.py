"""Official files from the Hugging Face hub, and only when the user names a hub id."""

from pathlib import Path

PREFIX = "hub:"
CONFIGS = ("config.json", "config.yaml")


def fetch(source: str) -> Path:
    """`hub:<owner>/<name>[/<file>]` -> the local copy: the file of weights named, or the folder of the only ones.

    A configuration file at the top of the repository comes along.

    Raises:
        ValueError: not such a name, several files that could be meant, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi, hf_hub_download

    owner, _, rest = source.removeprefix(PREFIX).partition("/")
    name, _, file = rest.partition("/")
    if not owner or not name:
        raise ValueError(f"{source} is no hub id; write hub:<owner>/<name> or hub:<owner>/<name>/<file>.")
    repository = f"{owner}/{name}"
    try:
        held = HfApi().list_repo_files(repository)
        wanted = [file] if file else weights_among(held, source)
        paths = [hf_hub_download(repository, wanted_file) for wanted_file in wanted]
        for config in CONFIGS:
            if config in held:
                hf_hub_download(repository, config)
    except ValueError:  # a name that cannot be, or several files: said already
        raise
    except Exception as error:  # no network, repository, file or permission, as the hub's HTTP library calls it
        what = f"the file {file}" if file else "its file of weights (and its config.json, where it has one)"
        raise ValueError(
            f"{source} cannot be fetched ({type(error).__name__}). Without the network: download {what} from "
            f"https://huggingface.co/{repository} elsewhere, place it in a folder here, for example {name}/, and give "
            f"{f'{name}/{Path(file).name}' if file else f'{name}/'} instead of the hub id."
        ) from None
    return Path(paths[0]) if len(paths) == 1 else Path(paths[0]).parent


def weights_among(files: list[str], source: str) -> list[str]:
    """The one file of weights at the top of a repository, or its shards; safetensors before pickles."""
    from ..tokenizers.checkpoints import PICKLES

    found = [file for file in files if file.endswith(".safetensors")] or [
        file for file in files if file.endswith(PICKLES)
    ]
    top = [file for file in found if "/" not in file]
    if len(top) == 1 or (top and all("-of-" in file for file in top)):
        return top
    raise ValueError(
        f"{source} holds {len(found)} files of weights; name one: "
        f"{', '.join(f'{source}/{file}' for file in found[:8])}."
        if found
        else f"{source} holds no file of weights (.safetensors {' '.join(PICKLES)})."
    )
