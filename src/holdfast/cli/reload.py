"""`holdfast reload`: the running gateway goes over to the configuration as it is now."""

import time

from holdfast.cli import _options, _output

_LOOK_SECONDS = 0.05


def reload(config: _options.ConfigUnread = None, data_dir: _options.DataDir = None) -> None:
    """Make the running `holdfast up` read its configuration again, without failing a call.

    Returns once new workers have taken over; those before finish their calls. A configuration with mistakes changes nothing: they are
    told, and the exit code is 2. Secrets are read again too; environment variables stay those that `up` was started with.

    \b
    Example:
      holdfast reload --data-dir /var/lib/holdfast
    """
    from holdfast.assembly import running  # not loaded for `--help`

    state = running.reload_running(_options.data_dir(data_dir), lambda: time.sleep(_LOOK_SECONDS))
    for note in state.notes:
        _output.note(f"holdfast: {note}")
    print(f"Holdfast reloaded (process {state.pid}, gateway {state.gateway}); the workers before finish their calls.")


PLUGIN = reload
