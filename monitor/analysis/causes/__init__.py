"""Why a group is behind: symptoms, one function a cause, one ranking."""
