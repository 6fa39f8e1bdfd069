"""Why an import did not happen, or stopped. A single row that is not taken is a Refusal, which is a value."""

from __future__ import annotations

from uuid import UUID

from strata.platform.errors import BadRequestError, ConflictError, InvalidInputError, NotFoundError, StrataError


class MappingUnknownError(NotFoundError):
    code = "import-mapping-unknown"
    title = "No such mapping"

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"There is no mapping «{name}»; the mappings are {', '.join(known)}.")
        self.name = name


class MappingRefusedError(InvalidInputError):
    code = "import-mapping-refused"
    title = "The mapping is not acceptable"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"The mapping «{name}» is not acceptable: {problem}. See docs/importing.md.")
        self.name = name


class FileUnreadableError(BadRequestError):
    """Found in the first pass, before anything is written."""

    code = "import-file-unreadable"
    title = "The file cannot be read"


class ColumnsMissingError(FileUnreadableError):
    code = "import-columns-missing"
    title = "Columns are missing"

    def __init__(self, missing: list[str], present: list[str]) -> None:
        super().__init__(
            f"The file's first line lacks the columns {', '.join(missing)}; it has {', '.join(present)}. "
            "Name another mapping, or mend the first line.",
            extra={"missing": missing, "present": present},
        )
        self.missing = missing


class FileChangedError(ConflictError):
    code = "import-file-changed"
    title = "The file changed"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"«{name}» changed while it was being imported; what was committed until then is complete and counted. "
            "Import from a copy that nothing writes to."
        )


class PlanBrokenError(ConflictError):
    code = "import-plan-broken"
    title = "A part of the import is missing"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"A part of «{name}» is missing where it was kept for the workers; what was posted until then is complete "
            "and counted. Cancel the import and send the file again: it goes on where it stopped."
        )


class ImportRunningError(ConflictError):
    code = "import-running"
    title = "The import is running"

    def __init__(self, run_id: UUID) -> None:
        super().__init__(
            "Another process is importing this file right now; wait for it to end.",
            extra={"run_id": str(run_id)},
        )
        self.run_id = run_id
        self.headers["Retry-After"] = "5"


class ImportQueuedError(ConflictError):
    code = "import-queued"
    title = "The import is queued"

    def __init__(self, run_id: UUID) -> None:
        super().__init__(
            "Workers are importing this file already; wait for them, or cancel that import first.",
            extra={"run_id": str(run_id)},
        )
        self.run_id = run_id


class ImportDoneError(ConflictError):
    code = "import-done"
    title = "The import is done"

    def __init__(self, run_id: UUID) -> None:
        super().__init__(
            f"Import {run_id} is done, and what it posted is in the ledger; reverse movements to take it back."
        )


class ImportNotQueuedError(ConflictError):
    code = "import-not-queued"
    title = "The import runs elsewhere"

    def __init__(self, run_id: UUID) -> None:
        super().__init__(f"Import {run_id} is run by a command, not by workers; stop that command.")


class ImportNotResumableError(ConflictError):
    code = "import-not-resumable"
    title = "Nothing to resume"

    def __init__(self, run_id: UUID) -> None:
        super().__init__(
            f"Import {run_id} has not failed among the workers, so nothing of it is kept; upload the file again."
        )


class ImportedOtherwiseError(ConflictError):
    code = "imported-otherwise"
    title = "Imported already, otherwise"

    def __init__(self, run_id: UUID, lines: int) -> None:
        super().__init__(
            f"{lines:,} lines of this file were imported already, by the same mapping with other options or an earlier "
            "wording; a second import would post them twice. Pass --again (again=true) if that is what you want.",
            extra={"run_id": str(run_id), "lines_accepted": lines},
        )
        self.run_id = run_id


class ImportUnknownError(NotFoundError):
    code = "import-unknown"
    title = "No such import"

    def __init__(self, run_id: UUID) -> None:
        super().__init__(f"There is no import {run_id}; GET /api/v1/imports lists them.")


class UploadTooLargeError(StrataError):
    code = "upload-too-large"
    status = 413
    title = "The upload is too large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"An upload may have {limit_bytes:,} bytes at most; send it packed with gzip, or use strata import.",
            extra={"limit_bytes": limit_bytes},
        )


class UnpackedTooLargeError(BadRequestError):
    code = "upload-too-large-unpacked"
    status = 413
    title = "The file is too large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"An upload may have {limit_bytes:,} bytes at most when it is unpacked; split it, or use strata import.",
            extra={"limit_bytes": limit_bytes},
        )


class BinInactiveError(ConflictError):
    code = "import-bin-inactive"
    title = "The bin is inactive"

    def __init__(self, bin_code: str) -> None:
        super().__init__(
            f"The mapping's bin «{bin_code}» is inactive; activate it, or name another bin in the mapping."
        )
        self.bin_code = bin_code


class ReportUnwritableError(BadRequestError):
    code = "import-report-unwritable"
    title = "The report cannot be written"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"The report «{name}» cannot be written: {problem}. What was imported stays imported.")
        self.name = name


class UploadEmptyError(BadRequestError):
    code = "upload-empty"
    title = "Nothing was uploaded"

    def __init__(self) -> None:
        super().__init__("The request has no body; send the file itself as the body, not as a form.")


class ReportNotYetError(BadRequestError):
    code = "import-report-not-yet"
    title = "No report yet"

    def __init__(self) -> None:
        super().__init__(
            "A queued import has no report yet; leave --report out, and look at its page or run the command again without "
            "--queue once it is done."
        )
