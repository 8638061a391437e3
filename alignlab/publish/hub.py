"""What is uploaded to a repository of the hub, and the upload."""

from collections.abc import Sequence
from pathlib import Path

from alignlab.errors import ConfigError, masked
from alignlab.models.cards import require_as_saved
from alignlab.publish.policies import Policy

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "alignlab.json")


def files_to_push(folder: Path, policies: Sequence[Policy]) -> dict[str, Path]:
    """Path in the repository -> file: what was published, and every policy's adapter.

    Args:
        folder: of the published files.
        policies: of the front.

    Raises:
        ConfigError: for an adapter that is not the one that was saved.
    """
    own = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    for policy in policies:
        if policy.adapter is not None:
            require_as_saved("algorithm.front", policy.adapter)
        for name in ADAPTER_FILES:
            if policy.adapter is not None and (policy.adapter / name).is_file():
                own[f"adapters/{policy.slug}/{name}"] = policy.adapter / name
    return own


def push(repo: str, files: dict[str, Path]) -> str:
    """Upload files in one commit to a repository, which is made private if there is none; returns its address.

    Args:
        repo: its id.
        files: path in the repository -> file.

    Raises:
        ConfigError: if the hub refuses, or cannot be reached; the key is never in the message.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
    try:
        address = api.create_repo(repo, private=True, exist_ok=True)
        api.create_commit(repo, operations, commit_message="A front of policies, by alignlab")
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError, ValueError) as error:
        reason = masked(" ".join(str(error).split()))[:200]
        raise ConfigError(f"algorithm.push={repo}: the hub does not take it: {reason}; the files are kept") from None
    return str(address)
