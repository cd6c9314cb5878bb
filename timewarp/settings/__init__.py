"""What a user asks for: one frozen dataclass a command, whose fields are the options of the command line.

They hold plain values alone, so that they cost nothing to import, and refuse what cannot be meant.
"""

from timewarp.settings.chains import AdaptSettings, ExploreSettings, MDSettings, Protocol, SampleSettings, Until
from timewarp.settings.measuring import BenchSettings, CompareSettings, EvaluateSettings, RaceSettings
from timewarp.settings.run import ChainSettings, Device, Progress, Report, RunSettings, SettingsError, Stop, Work
from timewarp.settings.training import Chart, DataSettings, TrainSettings

__all__ = [
    "AdaptSettings",
    "BenchSettings",
    "ChainSettings",
    "Chart",
    "CompareSettings",
    "DataSettings",
    "Device",
    "EvaluateSettings",
    "ExploreSettings",
    "MDSettings",
    "Progress",
    "Protocol",
    "RaceSettings",
    "Report",
    "RunSettings",
    "SampleSettings",
    "SettingsError",
    "Stop",
    "TrainSettings",
    "Until",
    "Work",
]
